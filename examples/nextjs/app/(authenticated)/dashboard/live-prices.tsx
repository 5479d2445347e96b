'use client';

import { usePriceStream } from 'scoped-relay/react';

export interface Quote {
  symbol: string;
  /** A text, because a number would change decimals. */
  price: string;
}

const STATES: Record<string, string> = {
  connecting: 'Connecting',
  open: 'Live',
  waiting: 'Connection lost, trying again',
  stopped: 'Stopped',
  closed: 'Stopped',
  signedOut: 'Your session has ended',
};

/** The table begins with the prices that the server rendered. Each symbol goes on with its live price. */
export function LivePrices({ first }: { first: Quote[] }) {
  const { prices, state, stale, error } = usePriceStream<Quote>(first.map(({ symbol }) => symbol));
  return (
    <>
      <p role="status" data-state={state} data-stale={stale}>
        {STATES[state] ?? state}
        {error !== null && ` (${error.code})`}
      </p>
      <table>
        <thead>
          <tr>
            <th scope="col">Symbol</th>
            <th scope="col">Price</th>
            <th scope="col">State</th>
          </tr>
        </thead>
        <tbody>
          {first.map(({ symbol, price }) => {
            const live = prices[symbol];
            const mark = live === undefined ? 'first' : live.stale ? 'stale' : 'live';
            return (
              <tr key={symbol} data-symbol={symbol} data-mark={mark}>
                <th scope="row">{symbol}</th>
                <td className="price">{live?.data.price ?? price}</td>
                <td>{mark}</td>
              </tr>
            );
          })}
        </tbody>
      </table>
    </>
  );
}
