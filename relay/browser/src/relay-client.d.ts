/**
 * relay-client.js: the browser client of relay.v1, for any number of channels over one WebSocket or event stream. Its design is
 * documented here, because comments in the .js file cost every page. Every `ts` is the server's clock in Unix
 * milliseconds.
 *
 * - A token opens one connection, so every attempt calls `getToken`. The token is in local variables until it was sent,
 *   and nowhere afterwards: an attacker's script finds none.
 * - A stopped price looks like a stable one, so channels are marked stale at every doubt: when no frame came for 1.5
 *   heartbeat intervals, at every disconnect, when the server reports a silent publisher, and when a refresh removes a
 *   channel.
 * - Before the connection's `expires_at` the server sends `token_expiring`. The client then fetches a new token at a
 *   random moment in the first half of the remaining time (after a restart all connections have the same age), and
 *   sends it as `refresh`. A failure is retried with back-off. After a final refusal of the issuer the connection lives
 *   until its end, and only then the stream stops.
 * - The names that the page wants and the names that were requested on this connection are two maps. A paced `flush`
 *   sends the difference, and a lost connection empties the second map: that is the whole resubscription. Each name is
 *   requested once, at the fastest wanted interval, and unsubscribed with its last reader.
 * - Where WebSockets are blocked, an event stream takes their place. Its subscriptions are fixed. So for a new channel, a
 *   gap or an expiring token, the client opens a successor with a new token, at most one a second. When its first frame
 *   comes, the old one is closed. Messages that both bring are dropped by `epoch` and `seq`.
 * - On an endpoint in `stream` mode only the next `seq` is accepted. After a lost connection or a jump, everything is
 *   requested again with `since`. Channels that matched a pattern are requested by their own names, before the pattern,
 *   because only exact names can be resumed. Messages that the server no longer has are reported as a `gap`.
 * - While the page is hidden, readers of `latest` channels are not called. They get each channel's newest value once
 *   when the page is visible again. Messages of `stream` channels are always delivered at once.
 * - A browser reads messages only while no code of the page runs, and its buffers hold minutes of small messages. So
 *   readers of `latest` channels that work longer than 50 ms, and more than three quarters of the time, wait until
 *   everything that has arrived is read, at most 250 ms. They then get each channel's newest value and skip the older
 *   ones. A channel becomes `live` only after its newest value was delivered. Messages of `stream` channels are never
 *   skipped.
 * - An update counts only after a snapshot of its channel. Otherwise updates that were sent before the server read an
 *   `unsubscribe` would be the first value of the next subscription.
 * - Every number of a server that becomes a timer is limited to 300 s, because a browser fires a timer above 2^31 ms
 *   at once. A negative number counts as 0, and anything that is no number as not sent.
 * - A connection asks for compressed batches if a channel has an interval. Their frames are read as if each had come alone.
 * - A message costs one JSON.parse and a few look-ups in a Map.
 */

/** The issuer's answer to `POST /auth/ws-token`. Only the first two members are needed to connect. */
export interface Grant {
  /** The token: it opens one connection, within about 30 seconds. */
  wsToken: string;
  /** The WebSocket URL for which the token was made. */
  endpoint: string;
  expires_in?: number;
  /** Seconds until the session's access token ends. Only if the browser has a refresh cookie. */
  session_expires_in?: number;
  /** Seconds that such an access token lives. */
  session_lifetime?: number;
  channels?: string[];
  rejected?: { channel: string; code: string }[];
}

/**
 * An answer without a token. The stream stops only if `retryable` is false. `fetchToken` takes `code` and `retryable`
 * from the relay's own error form (`code`, `message`, `retryable`). It ignores any other body, because a proxy in front
 * of the relay may answer 404 or 403 while a deployment runs, and a network's log-in page answers 200.
 */
export class TokenError extends Error {
  constructor(message: string, refusal: { status: number; code?: string; retryable?: boolean; retryAfterMs?: number });
  /** The HTTP status. */
  status: number;
  /** The issuer's code, such as `invalid_session`. Empty if the answer is not a relay's. */
  code: string;
  /** False: the next request would be refused as well. Not set if the answer is not a relay's. */
  retryable?: boolean;
  /**
   * The Retry-After header in milliseconds (NaN without one, or for a date). No attempt is made earlier, but at most
   * 300 s are waited.
   */
  retryAfterMs?: number;
}

/**
 * Return a `getToken` that POSTs to the issuer with the page's cookies, and keeps the session:
 *
 * - After a 401 it POSTs to `refreshPath` once, and asks once more. Only a second 401 ends the stream, with `signedOut`.
 * - While the page is visible, the session is renewed when four fifths of its life are over: in one tab, and at once
 *   after a sleep. A session without a refresh cookie is not renewed.
 * - When the session has ended in one tab, the streams of all tabs stop with `signedOut`.
 *
 * The last two are in a file of their own, `relay-session.js`, which is loaded beside the first token.
 */
export function fetchToken(request?: {
  /** The path or the URL of the issuer. Default `/auth/ws-token`. */
  path?: string;
  /** Default: `/api/auth/refresh` at the issuer's origin. */
  refreshPath?: string;
  /** Default: the issuer's `tokens.default_endpoint`. */
  endpoint?: string;
  /** Default: all that the policy grants there. */
  channels?: string[];
}): (attempt?: { signal?: AbortSignal }) => Promise<Grant>;

/** Log out: POST to `path`, and stop the streams of all tabs with `signedOut`. Throws a TokenError if that failed. */
export function logOut(request?: {
  /** Default: `/api/auth/logout`. */
  path?: string;
}): Promise<void>;

/**
 * Keep the session of a page without a stream: a stream whose `getToken` is `fetchToken` does the same by itself. It asks
 * `path` once who is logged in, and renews the session as `fetchToken` says. Returns a function that ends it. Call it in the
 * browser only, and again after a log-in on the same page.
 */
export function keepSession(request?: {
  /** Default: `/api/auth/me`. With the URL of another origin, the session is that origin's. */
  path?: string;
  /** Default: `/api/auth/refresh` at the same origin. */
  refreshPath?: string;
  /** Who is logged in: what the backend tells of the user. */
  onUser?: (user: any) => void;
  /** The session has ended, here or in another tab: show the log-in. Called once. */
  onSignedOut?: () => void;
}): () => void;

/** `sse` is an event stream, with the token in a header. The others are ways of a WebSocket. */
export type Transport = 'subprotocol' | 'query' | 'sse' | 'first_message';

export interface StreamOptions {
  /**
   * Called for every attempt and every refresh, because a token opens one connection. After an error it is called again
   * with back-off, unless the error's `retryable` is false. The error's `code` or message is the `reason` of the state
   * `waiting`; its `status` and `retryAfterMs` are used too. `signal` is aborted when the stream no longer waits for the
   * answer.
   */
  getToken: (attempt: { signal: AbortSignal }) => Promise<Grant>;
  /** Channels to subscribe at once. Their frames are the events `snapshot` and `update`. */
  channels?: string[];
  /** The URL to connect to, instead of the token's `endpoint`. */
  url?: string;
  /**
   * How the relay is reached, in this order. After two attempts that were refused, or had no answer in 3 s, the next one
   * is used: `sse` because a proxy may block WebSockets, `first_message` because a browser sees the reason of a refused
   * WebSocket only there. After 10 s of a good event stream, the next attempt is one with the first transport again.
   * Default: `['subprotocol', 'sse', 'first_message']`.
   */
  transports?: Transport[];
  /**
   * Whether connections ask the relay to compress what an interval collects. Default: if a channel has an `interval_ms`
   * when a connection is opened. Later the connection can't ask any more.
   */
  compress?: boolean;
  /** The session has ended, so the user has to log in. Called once, after the state `stopped`. */
  onSignedOut?: (change: StateChange) => void;
  /** The WebSocket class, if there is no global one. An example is that of the package `ws` in node. */
  WebSocket?: new (url: string, protocols: string[]) => any;
}

/** A channel's complete value. A snapshot has an `epoch`; an update belongs to the channel's last `epoch`. */
export interface DataFrame<Data = any> {
  type: 'snapshot' | 'update';
  channel: string;
  epoch?: string;
  seq: number;
  ts: number;
  source_ts?: number;
  data: Data;
}

export interface ChannelStatus {
  channel: string;
  /** `stale`: the value may be old, because the link or the publisher is silent, or the connection is lost. */
  state: 'stale' | 'live';
}

/** Messages of a `stream` channel were lost: the server no longer has all messages after `since`. */
export interface Gap {
  channel: string;
  /** The position of the last message that the readers got. */
  since: { epoch: string; seq: number };
  /**
   * The position of the next message, which is a snapshot. In the same epoch `seq - since.seq - 1` messages are
   * missing; in another epoch the number is unknown. `seq` 0: there is no value yet. Not set if the channel was refused.
   */
  epoch?: string;
  seq?: number;
}

export interface Refusal {
  channel: string;
  code: string;
  message: string;
}

export interface Handlers<Data = any> {
  /** The first value of a channel, and each value that does not follow the last one. */
  onSnapshot?: (frame: DataFrame<Data>) => void;
  /** Each newer value. Duplicates are dropped. */
  onUpdate?: (frame: DataFrame<Data>) => void;
  /** A channel became stale or live again. */
  onStatus?: (status: ChannelStatus) => void;
  /** Messages of a `stream` channel were lost. Without this handler it is the stream's `gap` event. */
  onGap?: (gap: Gap) => void;
  /**
   * One of the subscribed names was refused, or removed by a refresh. Without this handler it is the stream's `error`
   * event.
   */
  onError?: (refusal: Refusal) => void;
}

/**
 * `connecting`: fetching a token, or waiting for the welcome. `open`: the welcome has come. `waiting`: back-off.
 * `stopped`: the server or the issuer refused for good. `closed`: by `close()`. The last two are final.
 */
export type StreamState = 'connecting' | 'open' | 'waiting' | 'stopped' | 'closed';

export interface StateChange {
  state: StreamState;
  /** The WebSocket close code that caused the state; 1006 for a dead link and for a missing welcome. */
  code?: number;
  /** The HTTP status of the answer without a token that caused the state; 0 if there was no answer. */
  status?: number;
  /** A short code, such as `session_revoked` or `dead_link`, or what `getToken` threw. */
  reason?: string;
  /**
   * True in `stopped` if the session has ended: the issuer answered 401 also after a refresh, the server closed with
   * 4501, or another tab logged out.
   */
  signedOut?: boolean;
  /** Milliseconds until the next attempt, in `waiting`. */
  retryInMs?: number;
  /** The server's id of the connection, in `open`. The state is told again when a successor takes over. */
  connection?: string;
  /** What carries the connection, in `open`. */
  transport?: 'websocket' | 'sse';
}

export interface StreamEvents {
  state: StateChange;
  /** True: no frame came for 1.5 heartbeat intervals. False: frames come again. */
  silence: boolean;
  welcome: {
    connection: string;
    protocol: string;
    ts: number;
    heartbeat_ms: number;
    expires_at: number;
    limits: { channels: number; frame_bytes: number; frames_per_s: number };
  };
  heartbeat: { ts: number };
  /** A channel's value may be old from now on. */
  stale: ChannelStatus;
  /** A channel's value is known to be current. */
  live: ChannelStatus;
  /** For channels whose readers have no `onGap`. Without a listener it is a warning on the console. */
  gap: Gap;
  /** The connection ends soon. The client refreshes it. */
  token_expiring: { expires_in_ms: number };
  /** The connection has a new end. */
  refreshed: { id: number; expires_at: number };
  /** The answer to a subscription. A pattern's entry has the number of channels that match now. */
  subscribed: {
    id?: number;
    channels: {
      channel: string;
      mode: 'latest' | 'stream';
      interval_ms: number;
      epoch?: string;
      seq?: number;
      state?: 'stale' | 'live';
      recovered?: boolean;
      matches?: number;
    }[];
    rejected: Refusal[];
  };
  /**
   * An `error` frame of the server, a refused name without an `onError`, `malformed_frame`, or `not_refreshed` (the
   * issuer gave no token for a refresh). Without a listener it is a warning on the console.
   */
  error: { code: string; message?: string; channel?: string; id?: number; retryable?: boolean };
  /** Only for `StreamOptions.channels`. */
  snapshot: DataFrame;
  /** Only for `StreamOptions.channels`. */
  update: DataFrame;
}

export interface Stream {
  readonly state: StreamState;
  /** What carries the open connection; undefined if none is open. */
  readonly transport?: 'websocket' | 'sse';
  /**
   * Subscribe to channels and patterns (at most 256 over an event stream), now and after every reconnect. In a pattern `*` is one segment, and a last `>`
   * is the rest. Values that the stream already has arrive at once. Returns a function that ends the subscription.
   */
  subscribe<Data = any>(
    channels: string | string[],
    options?: Handlers<Data> & {
      /**
       * At most one update in this time: 0 (each), 50, 100, 250, 500 or 1000. The fastest reader's counts. With an interval
       * the values come compressed, if the first channels of the stream have one.
       */
      interval_ms?: number;
    },
  ): () => void;
  /** Listen to an event. A frame of an unknown type is an event of that type. */
  on<Name extends keyof StreamEvents>(event: Name, listener: (value: StreamEvents[Name]) => void): () => void;
  on(event: string, listener: (value: any) => void): () => void;
  /**
   * The server's clock in Unix milliseconds, estimated from the connection's fastest frame. `serverNow() - frame.ts` is
   * an age that does not depend on the page's clock. NaN before the welcome.
   */
  serverNow(): number;
  /** The round trip in milliseconds; NaN if the connection ended first, and over an event stream. */
  ping(): Promise<number>;
  /** Close the stream. It does not reconnect. */
  close(): void;
}

/**
 * Open a stream. It connects at once, and reconnects until `close()` or a final refusal. Mistakes of the program, such as
 * a missing `getToken`, a subscription without a channel or a handler that is no function, throw a TypeError at once.
 */
export function createStream(options: StreamOptions): Stream;
