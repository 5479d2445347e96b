/**
 * scoped-relay/react: live prices as React hooks, for React 18 and 19.
 *
 * - All hooks below one `RelayProvider`, and all hooks without a provider, share one stream, so a page has one
 *   connection. It is opened by the first hook, and closed one second after the last hook is gone.
 * - `symbols` are compared by content. They may be another array at every render, and they may change: the stream
 *   subscribes and unsubscribes on the same connection. A symbol that no hook uses is unsubscribed after one second, so
 *   StrictMode, a changed page or a sorted table cost nothing.
 * - Prices are shown once per animation frame, however many arrive, and all hooks show the same moment. In a hidden tab
 *   they wait until it is visible. A change of `state` is shown at once.
 * - A server that renders opens no connection, and gets no prices. The first prices come after hydration.
 */
import type { ReactElement, ReactNode } from 'react';
import type { StateChange, StreamOptions, StreamState } from './relay-client.js';

/** A symbol's latest value. It is another object when the value or `stale` changes, and only then. */
export interface Price<Data = any> {
  /** What the publisher sent. */
  readonly data: Data;
  /** When the relay got it: the server's clock in Unix milliseconds. */
  readonly ts: number;
  /** When the publisher's source made it, if the publisher says so. */
  readonly source_ts?: number;
  readonly channel: string;
  readonly seq: number;
  /** True: the value may be old, because the connection or the publisher is silent. */
  readonly stale: boolean;
}

/** Why there are no current prices. */
export interface StreamProblem {
  /** A short code, such as `forbidden`, `invalid_session` or `dead_link`. */
  readonly code: string;
  /** A sentence for a log. */
  readonly message: string;
  /** The channel that was refused. Not set if the whole stream has the problem. */
  readonly channel?: string;
}

/** The state of the stream. `signedOut`: the session has ended, and the user has to log in. */
export type RelayState = StreamState | 'signedOut';

export interface PriceStream<Data = any> {
  /** The latest prices by symbol. A symbol without a value yet is missing. */
  readonly prices: Readonly<Record<string, Price<Data>>>;
  /** The state of the stream that all hooks share. Without a symbol (`[]`) a hook opens none: then it is `closed`. */
  readonly state: RelayState;
  /** True unless the connection is open and every symbol has a current price. */
  readonly stale: boolean;
  /** Why the connection is not open, or the refusal of one of the symbols. It is null again when all is well. */
  readonly error: StreamProblem | null;
}

export interface PriceOptions {
  /** The channel of a symbol. Default: `prices.<symbol>`. It may be an inline function. */
  toChannel?: (symbol: string) => string;
  /** At most one value in this time: 0 (each; the default), 50, 100, 250, 500 or 1000. */
  interval_ms?: 0 | 50 | 100 | 250 | 500 | 1000;
}

export interface RelayProviderProps extends PriceOptions, Partial<Omit<StreamOptions, 'channels'>> {
  children?: ReactNode;
  /** The path or the URL of the issuer. Default `/auth/ws-token`. Not used with a `getToken`. */
  path?: string;
  /** The endpoint of the tokens. Default: the issuer's `tokens.default_endpoint`. Not used with a `getToken`. */
  endpoint?: string;
  /** The session has ended: show the log-in. Called once for each stream that ends so. */
  onSignedOut?: (change: StateChange) => void;
  /** Default: `/api/auth/refresh` at the issuer's origin. Not used with a `getToken`. */
  refreshPath?: string;
}

/**
 * Set options for the hooks below it. Without a provider the hooks use the default of each option. Functions may be
 * inline. A change of another option counts from the next connection on: give the provider a `key` to change it at once.
 */
export function RelayProvider(props: RelayProviderProps): ReactElement;

/** Return the live prices of symbols, such as `["BTC-USD", "ETH-USD"]`. */
export function usePriceStream<Data = any>(symbols: readonly string[], options?: PriceOptions): PriceStream<Data>;

/** Return the live price of one symbol, undefined before its first value. Only its own changes render again. */
export function usePrice<Data = any>(symbol: string, options?: PriceOptions): Price<Data> | undefined;

/** Return the functions of the stream that the hooks share. They are the same at every render. */
export function useRelay(): {
  /** Connect again after `signedOut` or `stopped`, for example when the user has logged in on the same page. */
  restart(): void;
};
