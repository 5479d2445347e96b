/**
 * relay-client.js: the browser side of relay.v1, any number of channels over one WebSocket. What it does, and why, is
 * told here, so that pages don't pay for it. Every `ts` is the server's clock in Unix milliseconds.
 *
 * - A token opens one connection, so every attempt asks `getToken` anew. It lives in local variables until it was sent
 *   and nowhere afterwards: there is none for a thief to find.
 * - A price that stopped looks like a stable one, so at every doubt channels are marked stale: when the link is silent
 *   for 1.5 heartbeats, at every disconnect, when the server says that the publisher is silent, and when a refresh
 *   takes a channel away.
 * - Before the connection reaches its `expires_at` the server sends `token_expiring`. The client then takes a new token
 *   at a random moment of the first half of the time that is left (after a restart all connections are of one age)
 *   and sends it as `refresh`. What fails is tried again with back-off; a final refusal of the issuer lets the
 *   connection live to its end, and only then stops the stream.
 * - What the page wants and what was asked of this connection are two maps. A paced `flush` sends the difference, and
 *   a lost connection empties the second: that is all of resubscribing. Each name is asked for once, at the fastest
 *   interval that anyone wants, and left when the last one has gone.
 * - On an endpoint in `stream` mode only the next `seq` is taken. Where it tears (a lost connection, a jump), everything
 *   is asked for again with `since`: channels that a pattern brought too, by their own names and before the pattern,
 *   because only exact names can be resumed. What the server no longer has is a `gap`, never a silence.
 * - While the page is hidden, readers of `latest` channels are left alone, and get each channel's newest value once
 *   when it is visible again. Messages of `stream` channels are handed on at once, always.
 * - A message costs a JSON.parse and one Map look-up.
 */

/** What the issuer answers to `POST /auth/ws-token`. Only the first two are needed to connect. */
export interface Grant {
  /** Good for one connection and about 30 seconds. */
  wsToken: string;
  /** The WebSocket URL that the token was made for. */
  endpoint: string;
  expires_in?: number;
  channels?: string[];
  rejected?: { channel: string; code: string }[];
}

/** The issuer's refusal. 429, 408 and everything from 500 on are tried again; any other 4xx stops the stream. */
export class TokenError extends Error {
  constructor(message: string, refusal: { status: number; code?: string; retryAfterMs?: number });
  /** The HTTP status. */
  status: number;
  /** The issuer's code, such as `invalid_session`. */
  code: string;
  /** Set where the issuer said when to come back, in seconds (NaN for a date): no attempt is made before. */
  retryAfterMs?: number;
}

/** Make a `getToken` that POSTs to the issuer of the page's own origin. */
export function fetchToken(request?: {
  /** Default `/auth/ws-token`. */
  path?: string;
  /** Default: the issuer's `tokens.default_endpoint`. */
  endpoint?: string;
  /** Default: all that the policy grants there. */
  channels?: string[];
}): (attempt?: { signal?: AbortSignal }) => Promise<Grant>;

export type Transport = 'subprotocol' | 'query' | 'first_message';

export interface StreamOptions {
  /**
   * Called for every attempt, and for every refresh, because a token opens one connection. May throw an error with
   * `status` and `retryAfterMs`. `signal` is aborted when the stream no longer waits for the answer.
   */
  getToken: (attempt: { signal: AbortSignal }) => Promise<Grant>;
  /** Subscribed at once; their frames come as the events `snapshot` and `update`. */
  channels?: string[];
  /** Connect here instead of to the token's `endpoint`. */
  url?: string;
  /**
   * How to carry the token. After two refused upgrades the next one is tried, because only `first_message` lets a
   * browser see why. Default: `['subprotocol', 'first_message']`.
   */
  transports?: Transport[];
  /** The class to connect with where there is no global one, such as that of the package `ws` in node. */
  WebSocket?: new (url: string, protocols: string[]) => any;
}

/** A channel's whole value. A snapshot names the sequencer's `epoch`; an update belongs to the last one named. */
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
  /** `stale`: the value shown may be old, because the link or the publisher is silent or the connection is lost. */
  state: 'stale' | 'live';
}

/** Messages of a `stream` channel were lost: the server does not have all that came after `since` any more. */
export interface Gap {
  channel: string;
  /** The last message that the readers got. */
  since: { epoch: string; seq: number };
  /**
   * Where the channel goes on, with a snapshot of this message. In the same epoch `seq - since.seq - 1` are missing;
   * in another one the number is not known. `seq` 0: there is no value yet. Not set where the channel was refused.
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
  /** The first value of a channel, and each value that does not follow from the last one seen. */
  onSnapshot?: (frame: DataFrame<Data>) => void;
  /** Each newer value. Duplicates never arrive here. */
  onUpdate?: (frame: DataFrame<Data>) => void;
  /** A channel became stale or live again. */
  onStatus?: (status: ChannelStatus) => void;
  /** Messages were lost, of a `stream` channel; without this handler it becomes the stream's `gap` event. */
  onGap?: (gap: Gap) => void;
  /**
   * One of the subscribed names was refused, or taken away by a refresh; without this handler it becomes the stream's
   * `error` event.
   */
  onError?: (refusal: Refusal) => void;
}

/**
 * `connecting`: asking for a token, or waiting for the welcome. `open`: the server said welcome. `waiting`: back-off.
 * `stopped`: the server or the issuer said not to come back. `closed`: by `close()`. The last two are final.
 */
export type StreamState = 'connecting' | 'open' | 'waiting' | 'stopped' | 'closed';

export interface StateChange {
  state: StreamState;
  /** The WebSocket close code that led here; 1006 for a dead link and for a welcome that never came. */
  code?: number;
  /** The issuer's HTTP status that led here; 0 where it did not answer. */
  status?: number;
  /** A short code, such as `session_revoked` or `dead_link`. */
  reason?: string;
  /** Milliseconds until the next attempt, in `waiting`. */
  retryInMs?: number;
  /** The server's name of the connection, in `open`. */
  connection?: string;
}

export interface StreamEvents {
  state: StateChange;
  /** The link is silent for 1.5 heartbeats (true), or has spoken again (false). */
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
  /** A channel's value is known to stand. */
  live: ChannelStatus;
  /** Of channels whose readers have no `onGap`. Without a listener it is a warning on the console. */
  gap: Gap;
  /** The connection ends soon; the client refreshes it by itself. */
  token_expiring: { expires_in_ms: number };
  /** It lives on. */
  refreshed: { id: number; expires_at: number };
  /** Acks; a pattern's names the pattern and how many channels match now. */
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
   * An `error` frame of the server, a refused name that no `onError` took, `malformed_frame`, or `not_refreshed`: the
   * issuer gave no token for a refresh. Without a listener it is a warning on the console.
   */
  error: { code: string; message?: string; channel?: string; id?: number; retryable?: boolean };
  /** Only for `StreamOptions.channels`. */
  snapshot: DataFrame;
  /** Only for `StreamOptions.channels`. */
  update: DataFrame;
}

export interface Stream {
  readonly state: StreamState;
  /**
   * Subscribe to channels and patterns (`*` is one segment, a last `>` the rest), now and after every reconnect.
   * Values that the stream already holds arrive at once. Returns the function that ends the subscription.
   */
  subscribe<Data = any>(
    channels: string | string[],
    options?: Handlers<Data> & {
      /** At most one update in this time: 0 (each), 50, 100, 250, 500 or 1000. The fastest asked for wins. */
      interval_ms?: number;
    },
  ): () => void;
  /** Listen to an event. Frames of types that this client does not know come under their own type. */
  on<Name extends keyof StreamEvents>(event: Name, listener: (value: StreamEvents[Name]) => void): () => void;
  on(event: string, listener: (value: any) => void): () => void;
  /**
   * The server's clock in Unix milliseconds, as the fastest frame of this connection told it, so that
   * `serverNow() - frame.ts` is an age whatever the page's own clock says. NaN before the welcome.
   */
  serverNow(): number;
  /** The round trip in milliseconds; NaN where the connection ended first. */
  ping(): Promise<number>;
  /** Close for good. */
  close(): void;
}

/** Open a stream. It connects at once and comes back by itself until `close()`, or until it is told to stop. */
export function createStream(options: StreamOptions): Stream;
