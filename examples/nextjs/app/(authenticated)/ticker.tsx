'use client';

import { usePrice } from 'scoped-relay/react';

/** One live price in the header of every page. Only its own changes render it again. */
export function Ticker({ symbol }: { symbol: string }) {
  const live = usePrice<{ price: string }>(symbol);
  return (
    <p className="ticker" data-stale={live?.stale ?? true}>
      {symbol} <span className="price">{live?.data.price ?? '–'}</span>
    </p>
  );
}
