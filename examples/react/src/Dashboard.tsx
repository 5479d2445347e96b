import { useState } from 'react';
import { logOut } from 'scoped-relay';
import { usePrice, usePriceStream, type RelayState } from 'scoped-relay/react';
import { Chart } from './Chart';

export interface Quote {
  bid: string;
  ask: string;
}

const SYMBOLS = ['BTC-USD', 'ETH-USD', 'SOL-USD', 'XRP-USD'];

const MEANING: Record<RelayState, string> = {
  connecting: 'Connecting …',
  open: 'Live',
  waiting: 'The connection is lost. Trying again …',
  stopped: 'The relay has refused the connection.',
  signedOut: 'Your session has ended.',
  closed: 'Closed',
};

export function Dashboard() {
  const [symbol, setSymbol] = useState(SYMBOLS[0]!);
  const { state, stale, error } = usePriceStream<Quote>(SYMBOLS);
  const [problem, setProblem] = useState('');
  // The streams of all tabs stop then, and onSignedOut shows the log-in
  const leave = () => logOut().catch((reason: Error) => setProblem(reason.message));

  return (
    <main>
      <h1>Live prices</h1>
      <header>
        <p role="status" className={stale ? 'stale' : ''} title={error?.message}>
          {MEANING[state]}
        </p>
        <button onClick={leave}>Log out</button>
      </header>
      <p role="alert">{problem}</p>
      <table>
        <thead>
          <tr>
            <th scope="col">Symbol</th>
            <th scope="col">Bid</th>
            <th scope="col">Ask</th>
          </tr>
        </thead>
        <tbody>
          {SYMBOLS.map((each) => (
            <Row key={each} symbol={each} chosen={each === symbol} onChoose={() => setSymbol(each)} />
          ))}
        </tbody>
      </table>
      <Chart key={symbol} symbol={symbol} />
    </main>
  );
}

// A row renders for its own price only
function Row({ symbol, chosen, onChoose }: { symbol: string; chosen: boolean; onChoose: () => void }) {
  const price = usePrice<Quote>(symbol);
  const stale = price?.stale ?? true;
  return (
    <tr className={stale ? 'stale' : ''} data-symbol={symbol}>
      <th scope="row">
        <button aria-pressed={chosen} onClick={onChoose}>
          {symbol}
        </button>
        {stale && <small> stale</small>}
      </th>
      <td>{price?.data.bid ?? '–'}</td>
      <td>{price?.data.ask ?? '–'}</td>
    </tr>
  );
}
