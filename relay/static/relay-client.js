// @ts-check
/**
 * The browser side of relay.v1: any number of channels over one WebSocket.
 *
 * - A token opens one connection, so every attempt asks `getToken` anew, and none is kept for a thief to find.
 * - A price that stopped looks like a stable one: at every doubt channels are marked stale.
 * - What the page wants and what was asked of this connection are two maps; a paced `flush` sends the difference.
 *   A lost connection empties the second: that is all of resubscribing.
 * - A message costs a JSON.parse and one Map look-up; one timer serves every state.
 *
 * @import { ChannelStatus, DataFrame, Handlers, Stream, StreamState } from './relay-client.js'
 * @typedef {Handlers & { names: Set<string>, takes: (channel: string) => boolean, interval: number }} Reader
 * @typedef {{ channel: string, epoch?: string, seq: number, last?: DataFrame, heardIn: number, quiet: boolean,
 *   stale: boolean, readers: Reader[] }} Entry
 */

const BACKOFF_FIRST_MS = 500;
const BACKOFF_LAST_MS = 20_000;
const GOOD_MS = 10_000; // a connection that lived this long starts the back-off anew
const PATIENCE_MS = 10_000; // for the token, and again for the welcome
const PACE_MS = 250; // between flushes: the server allows 10 frames a second, a page may mount 100 widgets
const FRAME_CHANNELS = 200; // of 64 bytes: fits the server's 16 KiB
const URL_CHARS = 1500; // proxies refuse long request lines
const STOP = new Set([1003, 1008, 1009, 3003]); // a bug or a refusal, the same next time

/** The issuer's refusal: `status`, `code`, `retryAfterMs`. */
export class TokenError extends Error {
  /** @param {string} message @param {object} refusal */
  constructor(message, refusal) {
    super(message);
    Object.assign(this, { name: 'TokenError', code: '' }, refusal);
  }
}

/** @type {typeof import('./relay-client.js').fetchToken} */
export function fetchToken({ path = '/auth/ws-token', endpoint, channels } = {}) {
  return async ({ signal } = {}) => {
    const response = await fetch(path, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ endpoint, channels }),
      cache: 'no-store',
      signal,
    });
    const body = await response.json().catch(() => ({}));
    if (response.ok) return body;
    const { status, headers } = response;
    const retryAfterMs = waitOf(headers.get('retry-after'));
    throw new TokenError(body.message || `The issuer answered ${status}.`, { status, code: body.code, retryAfterMs });
  };
}

/** @param {string | null} value seconds or an HTTP date */
function waitOf(value) {
  if (!value) return;
  const ms = isNaN(+value) ? Date.parse(value) - Date.now() : +value * 1000;
  return ms > 0 ? ms : 0;
}

/** @param {string[]} names channels and patterns: `*` is one segment, a last `>` the rest */
function matcher(names) {
  const exact = new Set(names);
  const patterns = names
    .filter((name) => /[*>]/.test(name))
    .map((name) => name.replace(/[^\w*>]/g, '\\$&').replace(/\*/g, '[^.]+').replace(/>$/, '.+'))
    .map((source) => RegExp(`^${source}$`));
  return (/** @type {string} */ channel) => exact.has(channel) || patterns.some((pattern) => pattern.test(channel));
}

// A reader's mistake must not stop the others, nor be lost: it goes where uncaught errors go
function call(reader, value) {
  try {
    reader?.(value);
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}

/** @type {typeof import('./relay-client.js').createStream} */
export function createStream({ getToken, channels, url, transports = ['subprotocol', 'first_message'] }) {
  const listeners = new Map();
  /** @type {Set<Reader>} */
  const readers = new Set();
  /** @type {Map<string, Entry>} */
  const entries = new Map();
  /** @type {Map<string, number>} name -> interval, as asked of this connection; -1: ask again */
  const sent = new Map();
  /** @type {Map<number, string[]>} id -> names, until answered */
  const requests = new Map();
  /** @type {Map<number, (at: number) => void>} */
  const pings = new Map();

  /** @type {StreamState} */
  let state = 'connecting';
  let run = 0; // what began in an earlier run is void
  let socket;
  let asking;
  let timer = 0;
  let due = 0; // when `timer` should fire
  let pacer = 0;
  let flushed = -PACE_MS;
  let failures = 0; // in a row: the back-off's exponent
  let refusals = 0; // upgrades that failed: two in a row move on to the next transport
  /** @type {number | undefined} the delay that server or issuer asked for */
  let told;
  let welcomed = Infinity;
  let beat = 5000;
  let heard = 0;
  let lead = NaN; // the server's clock minus ours, by the fastest frame seen
  let silent = false;
  let lastId = 0;

  function emit(event, value) {
    const called = listeners.get(event);
    called?.forEach((listener) => call(listener, value));
    if (!called && event === 'error') console.warn('relay', value);
  }

  function enter(next, detail) {
    state = next;
    emit('state', { state, ...detail });
  }

  function after(ms, next) {
    clearTimeout(timer);
    due = performance.now() + ms;
    timer = setTimeout(next, ms);
  }

  // Connecting: token, socket, welcome

  async function connect() {
    const mine = ++run;
    const { signal } = (asking = new AbortController());
    after(PATIENCE_MS, () => asking?.abort(Error('The token issuer does not answer.')));
    enter('connecting');
    try {
      const aborted = new Promise((_, reject) => (signal.onabort = () => reject(signal.reason)));
      const grant = await Promise.race([(async () => getToken({ signal }))(), aborted]);
      if (mine === run) open(grant);
    } catch (/** @type {any} */ error) {
      if (mine !== run) return;
      const { status = 0, code, message, retryAfterMs } = error;
      told = retryAfterMs >= 0 ? retryAfterMs + Math.random() * BACKOFF_FIRST_MS : undefined;
      // 408 and 429 say "later"; any other 4xx says the same next time
      const final = status >= 400 && status < 500 && status !== 408 && status !== 429 && 'stopped';
      leave(final, { status, reason: code || message });
    }
  }

  function open({ endpoint, wsToken }) {
    const transport = transports[(refusals >> 1) % transports.length];
    const query = firstChannels();
    if (transport === 'query') query.push(`token=${wsToken}`);
    const target = (url ?? endpoint) + (query.length ? `?${query.join('&')}` : '');
    const ws = transport === 'subprotocol' ? new WebSocket(target, ['relay.v1', `bearer.${wsToken}`]) : new WebSocket(target);
    let opened = 0;
    socket = ws;
    ws.onopen = () => {
      opened = 1;
      refusals &= ~1;
      if (ws === socket && transport === 'first_message') send({ type: 'auth', token: wsToken });
    };
    ws.onmessage = ({ data }) => ws === socket && receive(data);
    ws.onclose = ({ code, reason }) => {
      if (!opened) refusals++;
      if (ws === socket) ended(code, reason);
    };
    after(PATIENCE_MS, () => ended(1006, 'no_welcome'));
  }

  // One group goes with the URL: its data follows the welcome without a further round trip
  function firstChannels() {
    const [interval, names] = missing()[0] ?? [0, []];
    let length = 0;
    const first = names.filter((name) => (length += name.length + 3) < URL_CHARS);
    for (const name of first) sent.set(name, interval);
    return first.length ? [`channels=${first.map(encodeURIComponent)}`, `interval_ms=${interval}`] : [];
  }

  function welcome(frame) {
    welcomed = heard;
    lead = frame.ts - heard;
    beat = frame.heartbeat_ms || beat;
    enter('open', { connection: frame.connection });
    emit('welcome', frame);
    flush();
    if (socket) watch();
  }

  // Losing the connection, and coming back

  function ended(code, reason) {
    if (performance.now() - welcomed >= GOOD_MS) failures = 0;
    if (code !== 1001 && code !== 1012) told = undefined;
    leave((STOP.has(code) || code >= 4500) && 'stopped', { code, reason });
  }

  // Void everything of this connection, mark every channel stale, then stop or wait
  function leave(final, why) {
    run++;
    clearTimeout(timer);
    asking?.abort();
    const ws = socket;
    asking = socket = undefined;
    ws?.close(1000); // a dead link's close event may be minutes away: nobody waits for it
    sent.clear();
    requests.clear();
    for (const resolve of pings.values()) resolve(NaN);
    pings.clear();
    silent = false;
    welcomed = Infinity;
    const mine = run;
    for (const entry of entries.values()) {
      entry.quiet = false;
      settle(entry);
    }
    if (mine !== run) return; // a reader called close()
    if (final) {
      removeEventListener('online', hurry);
      return enter(final, why);
    }
    // Full jitter: ten thousand pages that lost one server must not come back in one moment
    const retryInMs = told ?? Math.random() * Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** failures++);
    after(retryInMs, connect);
    enter('waiting', { ...why, retryInMs });
  }

  function hurry() {
    if (state === 'waiting' && told === undefined) after(Math.random() * BACKOFF_FIRST_MS, connect);
  }

  // Called much too late, the page has slept: then the link gets one more beat to speak
  function watch() {
    const now = performance.now();
    if (now - due > beat) heard = Math.max(heard, now - 1.5 * beat);
    const silence = now - heard;
    if (silence >= 2.5 * beat) return ended(1006, 'dead_link');
    if (silence >= 1.5 * beat) hush(true);
    after((silent ? 2.5 : 1.5) * beat - silence, watch);
  }

  function hush(quiet) {
    silent = quiet;
    emit('silence', quiet);
    entries.forEach(settle);
  }

  // Receiving

  function receive(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return emit('error', { code: 'malformed_frame', message: 'The server sent a frame that is not JSON.' });
    }
    heard = performance.now();
    if (frame.ts - heard > lead) lead = frame.ts - heard;
    if (silent) hush(false);
    switch (frame.type) {
      case 'update':
      case 'snapshot':
        return deliver(frame);
      case 'welcome':
        return welcome(frame);
      case 'error':
        return failed(frame);
      case 'pong':
        return pings.get(frame.id)?.(heard);
      case 'status':
        judge(entryOf(frame.channel), frame.state);
        break;
      case 'subscribed':
        acknowledged(frame);
        break;
      case 'reconnect':
        told = frame.delay_ms;
    }
    requests.delete(frame.id);
    emit(frame.type, frame);
  }

  /** @param {DataFrame} frame */
  function deliver(frame) {
    const entry = entryOf(frame.channel);
    const snapshot = frame.type === 'snapshot';
    if (frame.seq > entry.seq || (snapshot && frame.epoch !== entry.epoch)) {
      if (snapshot) entry.epoch = frame.epoch;
      entry.seq = frame.seq;
      entry.last = frame;
      for (const reader of entry.readers) call(snapshot ? reader.onSnapshot : reader.onUpdate, frame);
    }
    // A repeated snapshot proves that the value still stands
    entry.heardIn = run;
    if (!snapshot) entry.quiet = false;
    if (entry.stale) settle(entry);
  }

  function entryOf(channel) {
    let entry = entries.get(channel);
    if (!entry) {
      const takers = [...readers].filter((reader) => reader.takes(channel));
      entry = { channel, seq: 0, heardIn: -1, quiet: false, stale: true, readers: takers };
      entries.set(channel, entry);
    }
    return entry;
  }

  function judge(entry, verdict) {
    entry.quiet = verdict === 'stale';
    settle(entry);
  }

  /** @param {Entry} entry */
  function settle(entry) {
    const stale = silent || entry.quiet || entry.heardIn !== run;
    if (stale === entry.stale) return;
    entry.stale = stale;
    for (const reader of entry.readers) call(reader.onStatus, statusOf(entry));
  }

  /** @param {Entry} entry @returns {ChannelStatus} */
  function statusOf({ channel, stale }) {
    return { channel, state: stale ? 'stale' : 'live' };
  }

  // Asking

  function send(frame) {
    if (socket?.readyState === 1) socket.send(JSON.stringify(frame));
  }

  // name -> the fastest interval that anyone wants
  function wanted() {
    /** @type {Map<string, number>} */
    const wants = new Map();
    for (const { names, interval } of readers)
      for (const name of names) wants.set(name, Math.min(interval, wants.get(name) ?? interval));
    return wants;
  }

  // [interval, names][]: wanted and not asked for
  function missing() {
    /** @type {Map<number, string[]>} */
    const groups = new Map();
    for (const [name, interval] of wanted()) {
      if (sent.get(name) === interval) continue;
      if (!groups.get(interval)?.push(name)) groups.set(interval, [name]);
    }
    return [...groups];
  }

  function flush() {
    pacer = 0;
    if (state !== 'open') return;
    flushed = performance.now();
    const wants = wanted();
    const gone = [...sent.keys()].filter((name) => !wants.has(name));
    ask('unsubscribe', gone);
    for (const name of gone) sent.delete(name);
    // Not before: who comes back between two flushes gets no new snapshot
    if (gone.length) entries.forEach((entry, channel) => entry.readers.length || entries.delete(channel));
    for (const [interval_ms, names] of missing()) {
      ask('subscribe', names, { interval_ms });
      for (const name of names) sent.set(name, interval_ms);
    }
  }

  function ask(type, names, options) {
    for (let i = 0; i < names.length; i += FRAME_CHANNELS) {
      const part = names.slice(i, i + FRAME_CHANNELS);
      requests.set(++lastId, part);
      send({ type, id: lastId, channels: part, ...options });
    }
  }

  function change(waitMs = 0) {
    pacer ||= setTimeout(flush, Math.max(waitMs, flushed + PACE_MS - performance.now()));
  }

  function acknowledged({ channels = [], rejected = [] }) {
    for (const { channel, epoch, state: verdict } of channels) {
      if (!epoch) continue; // a pattern: its channels come by themselves
      const entry = entryOf(channel);
      if (entry.epoch !== epoch) Object.assign(entry, { epoch, seq: 0 });
      judge(entry, verdict);
    }
    for (const refusal of rejected) complain(refusal.channel, refusal);
  }

  function failed(frame) {
    // "Too fast" comes without an id, for a frame not looked at: repeat what is unanswered
    const ids = frame.code === 'rate_limited' ? [...requests.keys()] : [frame.id];
    const names = ids.flatMap((id) => requests.get(id) ?? []);
    for (const id of ids) requests.delete(id);
    if (!names.length) return emit('error', frame);
    if (!frame.retryable) return names.forEach((name) => complain(name, frame));
    for (const name of names) sent.set(name, -1);
    change(frame.retry_after_ms || 1000);
  }

  function complain(channel, { code, message }) {
    const asked = [...readers].filter((reader) => reader.onError && reader.names.has(channel));
    if (!asked.length) emit('error', { channel, code, message });
    for (const { onError } of asked) call(onError, { channel, code, message });
  }

  // What the page sees

  /** @type {Stream['subscribe']} */
  function subscribe(channelOrList, { interval_ms = 0, ...handlers } = {}) {
    const list = [channelOrList].flat();
    const reader = { ...handlers, names: new Set(list), takes: matcher(list), interval: interval_ms };
    readers.add(reader);
    for (const entry of entries.values()) {
      if (!reader.takes(entry.channel)) continue;
      entry.readers = [...entry.readers, reader];
      queueMicrotask(() => {
        if (!entry.last || !readers.has(reader)) return;
        call(reader.onSnapshot, { ...entry.last, type: 'snapshot', epoch: entry.epoch });
        call(reader.onStatus, statusOf(entry));
      });
    }
    change();
    return () => {
      readers.delete(reader);
      for (const entry of entries.values()) entry.readers = entry.readers.filter((other) => other !== reader);
      change();
    };
  }

  addEventListener('online', hurry);
  if (channels?.length)
    subscribe(channels, { onSnapshot: (frame) => emit('snapshot', frame), onUpdate: (frame) => emit('update', frame) });
  queueMicrotask(() => state === 'connecting' && connect()); // the caller adds its listeners first

  return {
    get state() {
      return state;
    },
    subscribe,
    on(event, listener) {
      listeners.set(event, (listeners.get(event) ?? new Set()).add(listener));
      return () => listeners.get(event)?.delete(listener);
    },
    serverNow: () => performance.now() + lead,
    ping: () =>
      new Promise((resolve) => {
        if (state !== 'open') return resolve(NaN);
        const id = ++lastId;
        const at = performance.now();
        pings.set(id, (now) => {
          pings.delete(id);
          resolve(now - at);
        });
        send({ type: 'ping', id });
      }),
    close() {
      if (state === 'closed' || state === 'stopped') return;
      clearTimeout(pacer);
      leave('closed', { code: 1000, reason: '' });
    },
  };
}
