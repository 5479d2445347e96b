/** Types of relay-client.js: the browser side of relay.v1. Every `ts` is the server's clock in Unix milliseconds. */

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
  /** Set where the issuer said when to come back: no attempt is made before. */
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
   * Called for every attempt, because a token opens one connection. May throw an error with `status` and
   * `retryAfterMs`. `signal` is aborted when the stream no longer waits for the answer.
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
  /** One of the subscribed names was refused; without this handler it becomes the stream's `error` event. */
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
      matches?: number;
    }[];
    rejected: Refusal[];
  };
  /** Without a listener it is a warning on the console. */
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
  /** The server's clock in Unix milliseconds, so that `serverNow() - frame.ts` is an age. NaN before the welcome. */
  serverNow(): number;
  /** The round trip in milliseconds; NaN where the connection ended first. */
  ping(): Promise<number>;
  /** Close for good. */
  close(): void;
}

/** Open a stream. It connects at once and comes back by itself until `close()`, or until it is told to stop. */
export function createStream(options: StreamOptions): Stream;
