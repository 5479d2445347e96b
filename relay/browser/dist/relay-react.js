// Built from relay/browser/src, where the comments are
"use client";

// src/react.js
import { createContext, createElement, useContext, useInsertionEffect, useMemo, useState, useSyncExternalStore } from "react";
import { createStream, fetchToken } from "./relay-client.js";
var GRACE_MS = 1e3;
var NOTHING = Object.freeze({ prices: Object.freeze(
  /** @type {any} */
  { __proto__: null }
), state: "connecting", stale: true, error: null });
var serverStream = () => NOTHING;
var serverPrice = () => void 0;
var nextFrame = globalThis.requestAnimationFrame ?? setTimeout;
function createStore(options = {}) {
  const entries = /* @__PURE__ */ new Map();
  const watchers = /* @__PURE__ */ new Set();
  const changed = /* @__PURE__ */ new Set();
  let stream;
  let state = NOTHING.state;
  let error = NOTHING.error;
  let version = 0;
  let frame;
  function tell(listeners) {
    version++;
    [...listeners].forEach((listener) => listener());
  }
  function show() {
    frame = 0;
    const listeners = /* @__PURE__ */ new Set();
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
    const { options: options2 } = store;
    const getToken = options2.getToken ? Object.assign((attempt) => store.options.getToken(attempt), options2.getToken) : fetchToken(options2);
    const onSignedOut = (news) => store.options.onSignedOut?.(news);
    const opened = stream = createStream({ ...options2, getToken, onSignedOut, channels: [] });
    opened.on("state", (news) => {
      if (opened !== stream) return;
      const { status, code, reason, signedOut } = news;
      state = signedOut ? "signedOut" : news.state;
      if (state === "open") error = null;
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
      onStatus: ({ state: state2 }) => change(entry, { stale: state2 === "stale" }),
      onError: (error2) => change(entry, { error: error2 })
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
    stream = void 0;
    ({ state, error } = NOTHING);
    tell(watchers);
    left?.close();
  }
  function hold(want, listener) {
    let entry = entries.get(want.key);
    if (!entry) {
      entries.set(want.key, entry = { ...want, stale: true, listeners: /* @__PURE__ */ new Set() });
      join(entry);
    }
    clearTimeout(entry.timer);
    entry.listeners.add(listener);
    return () => {
      entry.listeners.delete(listener);
      if (entry.listeners.size) return;
      clearTimeout(entry.timer);
      entry.timer = setTimeout(leave, /^s/.test(state) ? 0 : GRACE_MS, entry);
    };
  }
  const priceOf = ({ key }) => entries.get(key)?.price;
  function look(wants, before) {
    const now = { prices: { __proto__: null }, state: stream || wants[0] ? state : "closed", stale: state !== "open", error };
    let same = true;
    for (const { symbol, key } of wants) {
      const { price, error: error2 } = entries.get(key) ?? {};
      if (price) now.prices[symbol] = price;
      if (price !== before.prices[symbol]) same = false;
      now.stale ||= !price || price.stale;
      now.error ??= error2 ?? null;
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
            leaves.forEach((leave2) => leave2());
          };
        },
        snapshot() {
          if (seen !== version) shown = look(wants, shown);
          seen = version;
          return shown;
        }
      };
    },
    one: (want) => (listener) => hold(want, listener),
    relay: {
      restart() {
        close();
        for (const entry of entries.values()) {
          entry.leave();
          change(entry, { error: void 0 });
          join(entry);
        }
      }
    }
  };
  return store;
}
var Store = createContext(createStore());
function RelayProvider({ children, ...options }) {
  const [store] = useState(() => createStore(options));
  useInsertionEffect(() => void (store.options = options));
  return createElement(Store.Provider, { value: store }, children);
}
function useWants(symbols, own) {
  if (!symbols?.map) throw TypeError(`${JSON.stringify(symbols)} is no list, such as ["BTC-USD"].`);
  const store = useContext(Store);
  const { toChannel = (symbol) => `prices.${symbol}`, interval_ms = 0 } = { ...store.options, ...own };
  const wants = symbols.map((symbol) => {
    const channel = toChannel(symbol);
    if (!symbol || typeof channel !== "string" || /[*>]/.test(channel))
      throw TypeError(`${JSON.stringify(symbol)} is no symbol, such as "BTC-USD".`);
    return { symbol, channel, interval_ms, key: `${channel} ${interval_ms}` };
  });
  const content = JSON.stringify(wants);
  return [store, useMemo(() => JSON.parse(content), [content])];
}
function usePriceStream(symbols, options) {
  const [store, wants] = useWants(symbols, options);
  const view = useMemo(() => store.view(wants), [store, wants]);
  return useSyncExternalStore(view.subscribe, view.snapshot, serverStream);
}
function usePrice(symbol, options) {
  const [store, [want]] = useWants([symbol], options);
  const subscribe = useMemo(() => store.one(want), [store, want]);
  return useSyncExternalStore(subscribe, () => store.priceOf(want), serverPrice);
}
var useRelay = () => useContext(Store).relay;
export {
  RelayProvider,
  usePrice,
  usePriceStream,
  useRelay
};
