import { createChart, LineSeries, type ISeriesApi, type UTCTimestamp } from 'lightweight-charts';
import { useEffect, useRef } from 'react';
import { usePrice } from 'scoped-relay/react';
import type { Quote } from './Dashboard';

export function Chart({ symbol }: { symbol: string }) {
  const box = useRef<HTMLDivElement>(null);
  const series = useRef<ISeriesApi<'Line'>>(null);
  const last = useRef(0);
  const price = usePrice<Quote>(symbol);

  useEffect(() => {
    // The page is light or dark
    const { color } = getComputedStyle(box.current!);
    const lines = { color: '#8884' };
    const chart = createChart(box.current!, {
      autoSize: true,
      layout: { background: { color: 'transparent' }, textColor: color },
      grid: { vertLines: lines, horzLines: lines },
      timeScale: { timeVisible: true, secondsVisible: true },
    });
    series.current = chart.addSeries(LineSeries, { lineWidth: 2 });
    return () => chart.remove();
  }, []);

  useEffect(() => {
    if (!price || price.stale) return;
    const value = (Number(price.data.bid) + Number(price.data.ask)) / 2;
    // One point a second: a later value of the same second replaces it. A chart takes no earlier time
    last.current = Math.max(last.current, Math.floor(price.ts / 1000));
    series.current?.update({ time: last.current as UTCTimestamp, value });
  }, [price]);

  return (
    <figure>
      <figcaption>{symbol}, the middle of bid and ask</figcaption>
      <div ref={box} className="chart" />
    </figure>
  );
}
