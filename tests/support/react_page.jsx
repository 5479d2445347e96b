// The page of tests/browser/test_react.py: what its hooks showed is in window.seen
import { memo, startTransition, StrictMode, useLayoutEffect, useRef, useState } from 'react';
import { createRoot, hydrateRoot } from 'react-dom/client';
import { flushSync } from 'react-dom';
import { renderToString } from 'react-dom/server.browser';
import { RelayProvider, usePrice, usePriceStream, useRelay } from 'scoped-relay/react';

const seen = { sockets: 0, open: 0, requests: 0, frame: 0, identities: [], renders: {}, torn: 0, errors: [], states: [] };
window.seen = seen;

const { WebSocket } = window;
window.WebSocket = class extends WebSocket {
  constructor(...given) {
    super(...given);
    seen.sockets++;
    seen.open++;
    this.addEventListener('close', () => seen.open--);
  }
};
const { fetch } = window;
window.fetch = (...given) => (seen.requests++, fetch(...given));
console.error = (...given) => seen.errors.push(given.join(' '));
const count = () => requestAnimationFrame(() => (seen.frame++, count()));
count();

function Stream({ symbols, ...options }) {
  const stream = usePriceStream([...symbols], options);
  const before = useRef(stream.prices);
  useLayoutEffect(() => {
    if (before.current !== stream.prices) seen.identities.push(seen.frame);
    before.current = stream.prices;
    window.stream = stream;
    if (seen.states.at(-1) !== stream.state) seen.states.push(stream.state);
  });
  window.relay = useRelay();
  const texts = Object.entries(stream.prices).map(([symbol, { data, stale }]) => `${symbol}=${data}${stale ? '?' : ''}`);
  return <p id="stream">{[...texts, stream.state, stream.error?.code].join(' ')}</p>;
}

const One = memo(function One({ symbol, work = 0 }) {
  const price = usePrice(symbol);
  seen.renders[symbol] = (seen.renders[symbol] ?? 0) + 1;
  for (const end = performance.now() + work; performance.now() < end; );
  return <b className="one" title={symbol}>{price?.data}</b>;
});

// Many slow readers of one price, rendered in a transition: at each commit they show one value
function Many() {
  const [shown, show] = useState(0);
  const [, again] = useState(0);
  window.showMany = (number) => startTransition(() => show(number));
  window.again = () => startTransition(() => again((number) => number + 1));
  useLayoutEffect(() => {
    const texts = [...document.querySelectorAll('.one')].map((element) => element.textContent);
    if (new Set(texts).size > 1) seen.torn++;
  });
  return <div>{Array.from({ length: shown }, (_, i) => <One key={i} symbol="BTC-USD" work={3} />)}</div>;
}

function Page({ provider, stream, ones = [], many = false }) {
  const parts = (
    <>
      {stream && <Stream {...stream} />}
      {ones.map((symbol) => <One key={symbol} symbol={symbol} />)}
      {many && <Many />}
    </>
  );
  return provider ? <RelayProvider {...provider} onSignedOut={() => (seen.signedOut = true)}>{parts}</RelayProvider> : parts;
}

const box = document.body.appendChild(document.createElement('main'));
let root;
const strict = (props) => <StrictMode><Page {...props} /></StrictMode>;
window.show = (props) => {
  root ??= createRoot(box);
  flushSync(() => root.render(strict(props)));
};
window.hydrate = (props) => {
  box.innerHTML = renderToString(strict(props));
  seen.errors.length = 0; // React 18 warns of this page's own useLayoutEffect
  const html = box.innerHTML;
  const { requests } = seen;
  root = hydrateRoot(box, strict(props));
  return { html, requests };
};
