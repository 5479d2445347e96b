// @ts-check
// One stream: its connections, one after the other, its channels and their readers

import { openEvents } from './events.js';
import { openSocket } from './socket.js';

/** @typedef {import('./relay-client.js').Transport} Transport */

const BACKOFF_FIRST_MS = 500;
const BACKOFF_LAST_MS = 20_000;
const GOOD_MS = 10_000; // a longer connection resets the back-off
const PATIENCE_MS = 10_000;
const OPEN_MS = 3000; // some proxies drop upgrades without an answer
const LONGEST_MS = 300_000;
const WORK_MS = 50; // of readers, before messages are read again
const PACE_MS = 250;
const FRAME_CHANNELS = 85; // with `since` within 16 KiB
const URL_CHANNELS = 60; // proxies refuse long URLs
const HEADER_CHANNELS = 256; // of an event stream, all its life
const JOIN_MS = 1000; // changes of them that share the next one
const STOP = [1003, 1008, 1009, 3003]; // final codes below 4500

// A mistake of the program is told at once, and not retried
function needFunction(given) {
  for (const name in given) if (typeof given[name] !== 'function') throw TypeError(`${name} must be a function.`);
}

// A timer above 2^31 ms fires at once. Only a number, and not NaN, is equal to its `+`
const bounded = (ms) => (+ms === ms ? Math.min(Math.max(ms, 0), LONGEST_MS) : undefined);

// `*` is one segment, a last `>` the rest
function matcher(names) {
  const sources = names.map((name) =>
    name.replace(/[^\w*>]/g, '\\$&').replace(/\*/g, '[^.]+').replace(/>$/, '.+'),
  );
  return RegExp(`^(${sources.join('|')})$`);
}

// A reader's error stops no other reader, and is reported
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
export function createStream({
  getToken,
  channels,
  url,
  compress,
  transports = ['subprotocol', 'sse', 'first_message'],
  WebSocket = globalThis.WebSocket,
  onSignedOut,
}) {
  needFunction({ getToken });
  if (onSignedOut) needFunction({ onSignedOut });
  const { document } = globalThis; // node has none
  /** @type {Promise<any> | undefined} */
  const session = /** @type {any} */ (getToken).session?.();
  const over = new AbortController();
  const listeners = new Map();
  const readers = new Set();
  const entries = new Map(); // by channel
  const sent = new Map(); // name -> requested interval; -1: request again
  const requests = new Map(); // id -> names, until answered
  const pings = new Map();
  const late = new Set(); // entries whose newest value waits for the readers

  /** @type {import('./relay-client.js').StreamState} */
  let state = 'connecting';
  let run = 0; // callbacks of older runs do nothing
  let socket;
  let fixed = 0; // id of an event stream's subscriptions; 0: a WebSocket
  let successor; // of an event stream; `true` while its token is fetched
  let asking;
  let timer;
  let due; // of the timer
  let renewer;
  let renewal; // id of the last refresh
  let pacer;
  let drainer;
  let worked = 0; // ms by readers, paid back by reading
  let measured = 0;
  let flushed = -PACE_MS;
  let failures = 0;
  let refusals = 0; // of upgrades; two change the transport
  let askedDelay; // reconnect delay
  let welcomed = Infinity;
  let beat = 5000;
  let heard = 0;
  let lead = NaN; // server's clock minus ours
  let latest = 0; // its greatest time
  let silent = false;
  let ordered = false; // `stream` mode, the same for a whole endpoint
  let mustResume = false; // resume all channels
  let lastId = 0;

  function emit(event, value) {
    const called = listeners.get(event);
    called?.forEach((listener) => call(listener, value));
    if (!called && /^(error|gap)$/.test(event)) console.warn('relay', event, value);
  }

  function inform(some, handler, event, value) {
    const able = some.filter((reader) => reader[handler]);
    able.forEach((reader) => call(reader[handler], value));
    if (!able.length) emit(event, value);
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

  // Full jitter spreads thousands of pages
  function backoff() {
    return Math.random() * Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** failures++);
  }

  async function withToken(use, fail) {
    const mine = run;
    const controller = (asking = new AbortController());
    const { signal } = controller;
    const patience = setTimeout(() => controller.abort(Error('The issuer does not answer.')), PATIENCE_MS);
    const aborted = new Promise((_, reject) => (signal.onabort = () => reject(signal.reason)));
    try {
      const grant = await Promise.race([(async () => getToken({ signal }))(), aborted]);
      if (!grant?.wsToken || !(url ?? grant.endpoint)) throw Error('getToken returned no token and endpoint.');
      if (mine === run) use(grant);
    } catch (/** @type {any} */ error) {
      const { status = 0, code, message, retryable, retryAfterMs } = error ?? {};
      let wait = bounded(retryAfterMs);
      if (wait !== undefined) wait += Math.random() * BACKOFF_FIRST_MS;
      if (mine === run) fail({ status, reason: code || message || `${error}` }, wait, retryable === false);
    } finally {
      clearTimeout(patience);
    }
  }

  function connect() {
    run++;
    enter('connecting');
    if (state === 'connecting')
      withToken(open, (why, wait, final) => {
        askedDelay = wait;
        if (!final || why.status !== 401) return leave(final && 'stopped', why);
        signOut(why);
        session?.then((known) => known?.end());
      });
  }

  function open({ endpoint, wsToken }) {
    const transport = /** @type {Transport} */ (transports[(refusals >> 1) % transports.length]);
    refusals++;
    if (transport === 'sse') socket = openFixed({ endpoint, wsToken });
    else {
      const opened = openSocket(WebSocket, url ?? endpoint, firstQuery(), transport, wsToken, {
        onopen,
        onmessage: (text) => opened === socket && receive(text),
        onclose: (code, reason) => opened === socket && ended(code, reason),
      });
      socket = opened;
    }
    after(OPEN_MS, () => ended(1006, 'no_answer'));
  }

  function onopen() {
    refusals = --refusals & ~1;
    after(PATIENCE_MS, () => {
      refusals += 2; // a proxy keeps back what comes
      ended(1006, 'no_welcome');
    });
  }

  // An event stream, also as the successor of another one, which ends when the first frame has come
  function openFixed({ endpoint, wsToken }) {
    const wants = wanted();
    // By their own names: only these can be resumed
    const lost = [...entries.values()].filter(({ seq, readers }) => ordered && seq && readers[0]);
    const since = Object.fromEntries(lost.map((entry) => [entry.channel, position(entry)]));
    const names = [...new Set([...Object.keys(since), ...wants.keys()])];
    const channels = names.slice(0, HEADER_CHANNELS);
    const interval_ms = Math.min(wants.size && 1000, ...wants.values());
    const id = ++lastId;
    const opened = openEvents(url ?? endpoint, { channels, interval_ms, since }, compress ?? interval_ms, wsToken, {
      onopen: () => opened === socket && onopen(),
      onmessage(text) {
        if (opened === successor) {
          socket.close();
          socket = opened;
        }
        if (opened !== socket) return;
        if (fixed !== id) {
          fixed = id;
          successor = undefined;
          mustResume = false;
          sent.clear();
          clearTimeout(renewer);
          for (const name of names) sent.set(name, interval_ms);
          for (const name of names.slice(HEADER_CHANNELS))
            complain(name, { code: 'too_many_channels', message: 'At most 256.' });
          for (const entry of lost) entry.resuming = id;
        }
        receive(text);
      },
      onclose(code, reason, waitMs) {
        if (opened === socket) ended(code, reason, waitMs);
        if (opened === successor) notRenewed({ reason }, bounded(waitMs));
      },
    });
    return opened;
  }

  // The URL saves a round trip
  function firstQuery() {
    const [interval, names = []] = (!mustResume && missing()[0]) || []; // a URL has no `since`
    const first = names.slice(0, URL_CHANNELS);
    for (const name of first) sent.set(name, interval);
    const query = first.length ? [`channels=${first.map(encodeURIComponent)}`, `interval_ms=${interval}`] : [];
    // Frames can't ask for it later
    return (compress ?? [...readers].some((reader) => reader.interval)) ? [...query, 'compress=1'] : query;
  }

  function welcome(frame) {
    welcomed = heard;
    askedDelay = undefined;
    lead = frame.ts - heard;
    beat = bounded(frame.heartbeat_ms) || beat;
    enter('open', { connection: frame.connection, transport: carrier() });
    emit('welcome', frame);
    flush();
    if (socket) watch();
  }

  function renewIn(ms) {
    clearTimeout(renewer);
    renewer = setTimeout(withToken, ms, refresh, notRenewed);
  }

  function notRenewed(why, wait, final) {
    successor &&= successor.close?.() ?? true;
    emit('error', { code: 'not_refreshed', message: why.reason });
    if (!final) renewIn(wait ?? backoff());
  }

  function refresh(grant) {
    if (fixed) {
      successor?.close?.();
      successor = openFixed(grant);
      clearTimeout(renewer);
      renewer = setTimeout(notRenewed, PATIENCE_MS, { reason: 'no_welcome' });
      return;
    }
    requests.set((renewal = ++lastId), []);
    send({ type: 'refresh', id: renewal, token: grant.wsToken });
  }

  function ended(code, reason, waitMs) {
    if (performance.now() - welcomed >= GOOD_MS) {
      failures = 0;
      if (fixed) refusals = 1; // one try of the first transport
    }
    // 4008: missed messages are kept briefly
    if (code !== 1001 && code !== 1012) askedDelay = code === 4008 && !failures ? failures++ : bounded(waitMs);
    if (code === 4501) signOut({ code, reason });
    else leave((STOP.includes(code) || code >= 4500) && 'stopped', { code, reason });
  }

  function signOut(why) {
    const change = { ...why, signedOut: true };
    leave('stopped', change);
    call(onSignedOut, change);
  }

  function leave(final, why) {
    const mine = ++run;
    [timer, renewer].forEach(clearTimeout);
    asking?.abort();
    const left = [socket, successor];
    asking = socket = successor = undefined;
    for (const each of left) each?.close?.(); // a browser's own close may take minutes
    fixed = 0;
    sent.clear();
    requests.clear();
    pings.forEach((resolve) => resolve(NaN));
    pings.clear();
    mustResume = ordered;
    silent = false;
    welcomed = Infinity;
    for (const entry of entries.values()) {
      entry.resuming = 0;
      judge(entry);
    }
    if (mine !== run) return; // a reader called close()
    if (final) {
      over.abort();
      return enter(final, why);
    }
    const retryInMs = askedDelay ?? backoff();
    after(retryInMs, connect);
    enter('waiting', { ...why, retryInMs });
  }

  const carrier = () => (welcomed < Infinity ? (fixed ? 'sse' : 'websocket') : undefined);

  function connectSoon() {
    if (state === 'waiting' && askedDelay === undefined) after(Math.random() * BACKOFF_FIRST_MS, connect);
  }

  function watch() {
    const now = performance.now();
    // The page slept: wait one more beat
    if (now - due > beat) heard = Math.max(heard, now - 1.5 * beat);
    const silence = now - heard;
    if (silence >= 2.5 * beat) return ended(1006, 'dead_link');
    if (silence >= 1.5 * beat) setSilent(true);
    after((silent ? 2.5 : 1.5) * beat - silence, watch);
  }

  function setSilent(quiet) {
    silent = quiet;
    emit('silence', quiet);
    entries.forEach(settle);
  }

  function receive(text) {
    heard = performance.now();
    try {
      read(JSON.parse(text));
    } catch {
      emit('error', { code: 'malformed_frame' }); // callbacks never throw here: see `call`
    }
  }

  function read(frame) {
    const { type, id, channel, seq, ts } = frame;
    if (typeof type !== 'string') throw frame;
    if (type === 'batch') return frame.frames.forEach(read);
    const known = entries.get(channel);
    const former = channel ? seq > known?.seq && known.last?.ts : latest;
    // The server's clock was set back
    if (former - ts > 1000 && type !== 'snapshot') lead = latest = -Infinity;
    if (ts - heard > lead) lead = ts - heard;
    if (ts > latest) latest = ts;
    if (silent) setSilent(false);
    if (type === 'update' || type === 'snapshot') return deliver(frame);
    if (type === 'welcome') return welcome(frame);
    if (type === 'error') return failed(frame);
    if (type === 'pong') pings.get(id)?.(heard);
    pings.delete(id);
    if (type === 'status') judge(entryOf(channel), frame.state);
    if (type === 'subscribed') acknowledged({ id: fixed, ...frame });
    if (type === 'unsubscribed' && !id) withdrawn(frame.channels);
    if (type === 'token_expiring') renewIn((Math.random() * (bounded(frame.expires_in_ms) ?? PATIENCE_MS)) / 2); // spreads refreshes
    if (type === 'reconnect') askedDelay = bounded(frame.delay_ms);
    requests.delete(id);
    emit(type, frame);
  }

  function deliver(frame) {
    const { type, channel, epoch, seq } = frame;
    const entry = entryOf(channel);
    if (type === 'update' && !entry.epoch) return; // of a subscription that has ended
    const otherEpoch = type === 'snapshot' && epoch !== entry.epoch;
    if (otherEpoch || seq > entry.seq) {
      if (ordered && entry.seq && (otherEpoch || seq > entry.seq + 1)) {
        if (entry.resuming) return;
        if (!otherEpoch) {
          mustResume = true;
          return change();
        }
        lose(entry, frame);
      }
      if (otherEpoch) entry.epoch = epoch;
      entry.seq = seq;
      entry.last = late.has(entry) && entry.last.type === 'snapshot' ? whole(entry, frame) : frame;
      if (ordered) show(entry);
      else late.add(entry);
      if (!drainer && !ordered) drain(heard);
    }
    entry.heardIn = run;
    if (type === 'update') entry.quiet = false;
    settle(entry);
  }

  function show(entry) {
    const { last, readers } = entry;
    late.delete(entry);
    for (const { onSnapshot, onUpdate } of readers) call(last.type === 'snapshot' ? onSnapshot : onUpdate, last);
  }

  // Readers get three quarters of the time: all that has arrived is read before the next call, so its value is new
  function drain(now = performance.now()) {
    drainer &&= clearTimeout(drainer);
    worked = Math.max(0, worked - 3 * (now - measured));
    measured = now;
    for (const entry of late) {
      if (document?.hidden) return;
      if (worked > WORK_MS) return void (drainer = setTimeout(drain, worked / 3));
      show(entry);
      settle(entry);
      worked = Math.min(worked - measured + (measured = performance.now()), 15 * WORK_MS);
    }
  }

  const whole = ({ epoch }, frame) => ({ ...frame, type: 'snapshot', epoch });
  const position = ({ epoch, seq }) => ({ epoch, seq });

  function lose(entry, found) {
    const { channel, readers } = entry;
    inform(readers, 'onGap', 'gap', { channel, since: position(entry), ...position(found) });
    entry.seq = 0;
  }

  function entryOf(channel) {
    let entry = entries.get(channel);
    if (!entry) {
      const takers = [...readers].filter((reader) => reader.takes.test(channel));
      entry = { channel, seq: 0, heardIn: -1, quiet: false, state: 'stale', readers: takers };
      entries.set(channel, entry);
    }
    return entry;
  }

  function judge(entry, verdict) {
    entry.quiet = verdict === 'stale';
    settle(entry);
  }

  function settle(entry) {
    const { channel, quiet, heardIn } = entry;
    const verdict = silent || quiet || heardIn !== run ? 'stale' : 'live';
    if (verdict === entry.state || (verdict === 'live' && late.has(entry))) return;
    entry.state = verdict;
    for (const reader of entry.readers) call(reader.onStatus, { channel, state: verdict });
    emit(verdict, { channel, state: verdict });
  }

  function send(frame) {
    socket?.send(frame);
  }

  // name -> fastest wanted interval
  function wanted() {
    const wants = new Map();
    for (const { names, interval } of readers)
      for (const name of names) wants.set(name, Math.min(interval, wants.get(name) ?? interval));
    return wants;
  }

  function missing() {
    const groups = new Map();
    for (const [name, interval] of wanted())
      if (sent.get(name) !== interval && !groups.get(interval)?.push(name)) groups.set(interval, [name]);
    return [...groups];
  }

  function flush() {
    pacer = 0;
    if (state !== 'open') return;
    flushed = performance.now();
    const wants = wanted();
    // Only here: a name subscribed again before gets no snapshot
    entries.forEach((entry, channel) => entry.readers.length || (late.delete(entry), entries.delete(channel)));
    const lost = [...entries.keys()].filter((name) => mustResume && entries.get(name).seq);
    if (fixed) {
      for (const name of sent.keys()) if (!wants.has(name)) sent.delete(name);
      if (mustResume || [...wants].some(([name, interval]) => !(sent.get(name) <= interval))) succeed();
      return;
    }
    // The server resumes only unsubscribed channels
    const gone = [...sent.keys()].filter((name) => mustResume || !wants.has(name));
    mustResume = false;
    ask('unsubscribe', gone);
    // Before patterns that match them; the next flush unsubscribes them
    ask('subscribe', lost, 0, true);
    if (gone.length + lost.length) change();
    for (const [interval, names] of missing()) ask('subscribe', names, interval);
  }

  function succeed() {
    successor ??= !(/** @type {any} */ (renewIn(0)));
  }

  function ask(type, names, interval_ms, resumed) {
    for (let i = 0; i < names.length; i += FRAME_CHANNELS) {
      const channels = names.slice(i, i + FRAME_CHANNELS);
      const since = resumed && Object.fromEntries(channels.map((name) => [name, position(entries.get(name))]));
      requests.set(++lastId, channels);
      if (i) flushed += 100; // 10 frames a second
      for (const name of channels) {
        if (resumed) entries.get(name).resuming = lastId;
        type === 'subscribe' ? sent.set(name, interval_ms) : sent.delete(name);
      }
      send({ type, id: lastId, channels, interval_ms, since });
    }
  }

  function change(waitMs = 0) {
    pacer ||= setTimeout(flush, Math.max(waitMs, flushed + (fixed ? JOIN_MS : PACE_MS) - performance.now()));
  }

  function acknowledged({ id, channels, rejected }) {
    for (const answer of [...channels, ...rejected]) {
      const { channel, mode, seq, state: verdict = 'stale', recovered } = answer;
      if (mode) ordered = mode === 'stream';
      else complain(channel, answer);
      if (!sent.has(channel)) sent.set(channel, -1); // by the token
      if (/[*>]/.test(channel)) continue; // a pattern
      const entry = entryOf(channel);
      if (entry.resuming) {
        mustResume ||= !id; // by the token, not from our position
        if (mustResume || entry.resuming !== id) continue;
        entry.resuming = 0;
        // A successor's answer may be older than what its predecessor has brought
        if (!recovered && (answer.epoch !== entry.epoch || seq > entry.seq)) lose(entry, answer);
        else if (seq === entry.seq) entry.heardIn = run;
      }
      judge(entry, seq === 0 ? 'live' : verdict); // once it has a value
    }
    if (mustResume) flush();
  }

  function failed(frame) {
    // A rate limit has no id: repeat all open requests
    const ids = frame.code === 'rate_limited' ? [...requests.keys()] : [frame.id];
    const names = ids.flatMap((id) => requests.get(id) ?? []);
    if (ids.includes(renewal) && requests.has(renewal)) renewIn(Math.max(bounded(frame.retry_after_ms) ?? 0, backoff()));
    for (const id of ids) requests.delete(id);
    if (!names.length) return frame.code === 'nothing_subscribed' && readers.size ? undefined : emit('error', frame);
    if (!frame.retryable) return names.forEach((name) => complain(name, frame));
    for (const name of names) {
      sent.set(name, -1);
      if (entries.get(name)?.resuming) mustResume = true;
    }
    change(bounded(frame.retry_after_ms) ?? PACE_MS);
  }

  function complain(channel, { code, message }) {
    const asked = [...readers].filter((reader) => reader.names.includes(channel));
    inform(asked, 'onError', 'error', { channel, code, message });
  }

  // The new token does not allow these
  function withdrawn(names) {
    const takes = matcher(names);
    for (const entry of entries.values()) if (takes.test(entry.channel)) judge(entry, 'stale');
    for (const name of names) complain(name, { code: 'forbidden', message: 'The new token forbids this.' });
  }

  /** @type {import('./relay-client.js').Stream['subscribe']} */
  function subscribe(channelOrList, { interval_ms = 0, ...handlers } = {}) {
    const names = [channelOrList].flat();
    if (!names.length || names.some((name) => !name || typeof name !== 'string'))
      throw TypeError('subscribe needs channels.');
    for (const name in handlers) if (/^on[A-Z]/.test(name) && handlers[name]) needFunction({ [name]: handlers[name] });
    const reader = { ...handlers, names, takes: matcher(names), interval: interval_ms };
    readers.add(reader);
    for (const entry of entries.values()) {
      if (!reader.takes.test(entry.channel)) continue;
      entry.readers = [...entry.readers, reader];
      queueMicrotask(() => {
        if (!entry.last || !readers.has(reader)) return;
        if (!late.has(entry)) call(reader.onSnapshot, whole(entry, entry.last));
        call(reader.onStatus, { channel: entry.channel, state: entry.state });
      });
    }
    change();
    return () => {
      readers.delete(reader);
      for (const entry of entries.values()) entry.readers = entry.readers.filter((other) => other !== reader);
      change();
    };
  }

  function seen() {
    if (document.hidden) return;
    connectSoon();
    drain();
  }

  session?.then((known) => known?.join(() => signOut({ reason: 'signed_out' }), over.signal));
  globalThis.addEventListener?.('online', connectSoon, over);
  document?.addEventListener('visibilitychange', seen, over);
  if (channels?.length)
    subscribe(channels, { onSnapshot: (frame) => emit('snapshot', frame), onUpdate: (frame) => emit('update', frame) });
  queueMicrotask(() => state === 'connecting' && connect()); // after the caller's listeners

  return {
    get state() {
      return state;
    },
    get transport() {
      return carrier();
    },
    subscribe,
    on(event, listener) {
      needFunction({ listener });
      listeners.set(event, (listeners.get(event) ?? new Set()).add(listener));
      return () => listeners.get(event)?.delete(listener);
    },
    serverNow: () => performance.now() + lead,
    ping: () =>
      new Promise((resolve) => {
        if (state !== 'open' || fixed) return resolve(NaN);
        const at = performance.now();
        pings.set(++lastId, (now) => resolve(now - at));
        send({ type: 'ping', id: lastId });
      }),
    close() {
      if (over.signal.aborted) return;
      clearTimeout(pacer);
      late.clear();
      leave('closed', { code: 1000, reason: '' });
    },
  };
}
