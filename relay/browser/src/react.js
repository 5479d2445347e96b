// @ts-check
// The React hooks: react.d.ts documents them
'use client';

import { createContext, createElement, useContext, useInsertionEffect, useMemo, useState, useSyncExternalStore } from 'react';
import { createStream, fetchToken } from './relay-client.js';

const GRACE_MS = 1000;

/** @type {import('./react.js').PriceStream} */
const NOTHING = Object.freeze({ prices: Object.freeze(/** @type {any} */ ({ __proto__: null })), state: 'connecting', stale: true, error: null });
const serverStream = () => NOTHING;
const serverPrice = () => undefined;
const nextFrame = globalThis.requestAnimationFrame ?? setTimeout;

// What the hooks of one provider share: a stream, and an entry for each channel that a hook uses. Nothing happens
// before the first effect, so a server that renders opens no connection.
function createStore(options = {}) {
  const entries = new Map(); // by key: a channel and an interval
  const watchers = new Set(); // of the state
  const changed = new Set(); // entries, until the next frame
  let stream;
  let state = NOTHING.state;
  let error = NOTHING.error;
  let version = 0; // grows with everything that a snapshot shows
  let frame; // is asked for

  function tell(listeners) {
    version++;
    [...listeners].forEach((listener) => listener());
  }

  function show() {
    frame = 0;
    const listeners = new Set();
    for (const entry of changed) {
      if (entry.last) entry.price = { ...entry.last, stale: entry.stale };
      entry.listeners.forEach(listeners.add, listeners);
    }
    changed.clear();
    tell(listeners);
  }

  function change(entry, news) {
    Object.assign(entry, news);
    changed.add(entry);
    frame ||= nextFrame(show);
  }

  function open() {
    const { options } = store;
    // An inline function is another one at every render; its session stays
    const getToken = options.getToken
      ? Object.assign((attempt) => store.options.getToken(attempt), options.getToken)
      : fetchToken(options);
    const onSignedOut = (news) => store.options.onSignedOut?.(news);
    const opened = (stream = createStream({ ...options, getToken, onSignedOut, channels: [] }));
    opened.on('state', (news) => {
      if (opened !== stream) return;
      const { status, code, reason, signedOut } = news;
      state = signedOut ? 'signedOut' : news.state;
      if (state === 'open') error = null;
      // A close code has no text, or one
      if (reason != null) error = { code: reason || `${code}`, message: `${state}: ${reason} (${status ?? code})` };
      tell(watchers);
    });
  }

  function join(entry) {
    if (!stream) open();
    const read = (last) => change(entry, { last });
    entry.leave = stream.subscribe(entry.channel, {
      interval_ms: entry.interval_ms,
      onSnapshot: read,
      onUpdate: read,
      onStatus: ({ state }) => change(entry, { stale: state === 'stale' }),
      onError: (error) => change(entry, { error }),
    });
  }

  function leave(entry) {
    entry.leave();
    entries.delete(entry.key);
    changed.delete(entry);
    if (!entries.size) close();
  }

  function close() {
    const left = stream;
    stream = undefined;
    ({ state, error } = NOTHING);
    tell(watchers);
    left?.close();
  }

  function hold(want, listener) {
    let entry = entries.get(want.key);
    if (!entry) {
      entries.set(want.key, (entry = { ...want, stale: true, listeners: new Set() }));
      join(entry);
    }
    clearTimeout(entry.timer);
    entry.listeners.add(listener);
    return () => {
      entry.listeners.delete(listener);
      if (entry.listeners.size) return;
      clearTimeout(entry.timer);
      // After a final refusal the next hook begins with a new stream
      entry.timer = setTimeout(leave, /^s/.test(state) ? 0 : GRACE_MS, entry);
    };
  }

  const priceOf = ({ key }) => entries.get(key)?.price;

  function look(wants, before) {
    const now = { prices: { __proto__: null }, state: stream || wants[0] ? state : 'closed', stale: state !== 'open', error };
    let same = true;
    for (const { symbol, key } of wants) {
      const { price, error } = entries.get(key) ?? {};
      if (price) now.prices[symbol] = price;
      if (price !== before.prices[symbol]) same = false;
      now.stale ||= !price || price.stale;
      now.error ??= error ?? null;
    }
    if (same) now.prices = before.prices;
    return Object.keys(now).every((name) => now[name] === before[name]) ? before : now;
  }

  const store = {
    priceOf,
    options,
    view(wants) {
      let seen = -1;
      let shown = NOTHING;
      return {
        subscribe(listener) {
          const leaves = wants.map((want) => hold(want, listener));
          watchers.add(listener);
          return () => {
            watchers.delete(listener);
            leaves.forEach((leave) => leave());
          };
        },
        snapshot() {
          if (seen !== version) shown = look(wants, shown);
          seen = version;
          return shown;
        },
      };
    },
    one: (want) => (listener) => hold(want, listener),
    relay: {
      restart() {
        close();
        for (const entry of entries.values()) {
          entry.leave();
          change(entry, { error: undefined });
          join(entry);
        }
      },
    },
  };
  return store;
}

const Store = createContext(createStore());

/** @type {typeof import('./react.js').RelayProvider} */
export function RelayProvider({ children, ...options }) {
  const [store] = useState(() => createStore(options));
  // Before the effects of the children, which subscribe
  useInsertionEffect(() => void (store.options = options));
  return createElement(Store.Provider, { value: store }, children);
}

// What a hook wants, the same object until its content changes
function useWants(symbols, own) {
  if (!symbols?.map) throw TypeError(`${JSON.stringify(symbols)} is no list, such as ["BTC-USD"].`);
  const store = useContext(Store);
  const { toChannel = (symbol) => `prices.${symbol}`, interval_ms = 0 } = { ...store.options, ...own };
  const wants = symbols.map((symbol) => {
    const channel = toChannel(symbol);
    if (!symbol || typeof channel !== 'string' || /[*>]/.test(channel))
      throw TypeError(`${JSON.stringify(symbol)} is no symbol, such as "BTC-USD".`);
    return { symbol, channel, interval_ms, key: `${channel} ${interval_ms}` };
  });
  const content = JSON.stringify(wants);
  return [store, useMemo(() => JSON.parse(content), [content])];
}

/** @type {typeof import('./react.js').usePriceStream} */
export function usePriceStream(symbols, options) {
  const [store, wants] = useWants(symbols, options);
  const view = useMemo(() => store.view(wants), [store, wants]);
  return useSyncExternalStore(view.subscribe, view.snapshot, serverStream);
}

/** @type {typeof import('./react.js').usePrice} */
export function usePrice(symbol, options) {
  const [store, [want]] = useWants([symbol], options);
  const subscribe = useMemo(() => store.one(want), [store, want]);
  return useSyncExternalStore(subscribe, () => store.priceOf(want), serverPrice);
}

/** @type {typeof import('./react.js').useRelay} */
export const useRelay = () => useContext(Store).relay;
