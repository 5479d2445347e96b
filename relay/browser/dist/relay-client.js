// Built from relay/browser/src, where the comments are

// src/tokens.js
var TokenError = class extends Error {
  constructor(message, refusal) {
    super(message);
    Object.assign(this, { name: "TokenError", code: "" }, refusal);
  }
};
async function post(path, asked, signal) {
  const response = await fetch(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(asked),
    cache: "no-store",
    credentials: "include",
    // of another origin too
    signal
  });
  const body = await response.json().catch(() => {
  }) ?? {};
  const { ok, status, headers } = response;
  if (ok && (!asked || body.wsToken)) return body;
  const retryAfterMs = parseFloat(
    /** @type {any} */
    headers.get("retry-after")
  ) * 1e3;
  const { code, message, retryable } = body;
  if (code && message && typeof retryable === "boolean")
    throw new TokenError(message, { code, status, retryable, retryAfterMs });
  throw new TokenError(`The answer ${status} is not a relay's.`, { status, retryAfterMs });
}
var load = () => import("./relay-session.js");
var logOut = (options) => load().then((file) => file.logOut(post, options));
function keepSession(options) {
  const over = new AbortController();
  load().then((file) => file.keepSession(post, over, options));
  return () => over.abort();
}
function fetchToken({ path = "/auth/ws-token", endpoint, channels, refreshPath } = {}) {
  const session = async () => globalThis.document && load().then((file) => file.sessionFor(post, path, refreshPath), console.warn);
  async function getToken({ signal } = {}) {
    const since = Date.now();
    const ask = () => post(path, { endpoint, channels }, signal);
    const grant = await ask().catch(async (refusal) => {
      const { status, retryable } = refusal;
      if (status !== 401 || retryable !== false || !await (await session())?.refresh(signal)) throw refusal;
      return ask();
    });
    session().then((known) => known?.heard(grant, since));
    return grant;
  }
  return Object.assign(getToken, { session });
}

// src/events.js
var CODES = { 400: 1008, 401: 3e3, 403: 3003, 404: 3003, 409: 4503 };
function openEvents(url, subscriptions, compress, token, { onopen, onmessage, onclose }) {
  const controller = new AbortController();
  const headers = { accept: "text/event-stream", authorization: `Bearer ${token}` };
  if (subscriptions.channels.length) headers["relay-subscribe"] = JSON.stringify(subscriptions);
  async function read() {
    const { signal } = controller;
    const asked = compress ? "?compress=1" : "";
    const response = await fetch(url.replace(/^ws/, "http") + asked, { headers, cache: "no-store", signal });
    const field = (name) => (
      /** @type {any} */
      response.headers.get(name)
    );
    if (!/event-stream/.test(field("content-type"))) {
      const { code, retryable } = await response.json();
      return typeof retryable === "boolean" ? [CODES[response.status], code, parseFloat(field("retry-after")) * 1e3] : [];
    }
    onopen();
    const decoder = new TextDecoder();
    const reader = (
      /** @type {ReadableStream} */
      response.body.getReader()
    );
    for (let rest = ""; ; ) {
      const { done, value } = await reader.read();
      const events = (rest + decoder.decode(value, { stream: !done })).split("\n\n");
      rest = /** @type {string} */
      events.pop();
      for (const event of events) {
        const text = /^data: (.*)/m.exec(event)?.[1];
        const { type, code, reason } = text?.startsWith('{"type":"close"') ? JSON.parse(text) : {};
        if (type) return [code, reason];
        if (text) onmessage(text);
      }
      if (done) return [];
    }
  }
  read().catch(() => []).then(([code = 1006, reason = "", wait]) => onclose(code, reason, wait));
  return { send() {
  }, close: () => controller.abort() };
}

// src/socket.js
function openSocket(WebSocket, url, query, transport, token, { onopen, onmessage, onclose }) {
  if (transport === "query") query = [...query, `token=${token}`];
  const protocols = transport === "subprotocol" ? ["relay.v1", `bearer.${token}`] : [];
  const socket = new WebSocket(`${url}?${query.join("&")}`, protocols);
  let auth = transport === "first_message" && { type: "auth", token };
  const send = (frame) => socket.readyState === 1 && socket.send(JSON.stringify(frame));
  socket.onopen = () => {
    onopen();
    if (auth) send(auth);
    auth = false;
  };
  socket.onmessage = ({ data }) => onmessage(data);
  socket.onerror = () => {
  };
  socket.onclose = ({ code, reason }) => onclose(code, reason);
  return { send, close: () => socket.close(1e3) };
}

// src/stream.js
var BACKOFF_FIRST_MS = 500;
var BACKOFF_LAST_MS = 2e4;
var GOOD_MS = 1e4;
var PATIENCE_MS = 1e4;
var OPEN_MS = 3e3;
var LONGEST_MS = 3e5;
var WORK_MS = 50;
var PACE_MS = 250;
var FRAME_CHANNELS = 85;
var URL_CHANNELS = 60;
var HEADER_CHANNELS = 256;
var JOIN_MS = 1e3;
var STOP = [1003, 1008, 1009, 3003];
function needFunction(given) {
  for (const name in given) if (typeof given[name] !== "function") throw TypeError(`${name} must be a function.`);
}
var bounded = (ms) => +ms === ms ? Math.min(Math.max(ms, 0), LONGEST_MS) : void 0;
function matcher(names) {
  const sources = names.map(
    (name) => name.replace(/[^\w*>]/g, "\\$&").replace(/\*/g, "[^.]+").replace(/>$/, ".+")
  );
  return RegExp(`^(${sources.join("|")})$`);
}
function call(reader, value) {
  try {
    reader?.(value);
  } catch (error) {
    setTimeout(() => {
      throw error;
    });
  }
}
function createStream({
  getToken,
  channels,
  url,
  compress,
  transports = ["subprotocol", "sse", "first_message"],
  WebSocket = globalThis.WebSocket,
  onSignedOut
}) {
  needFunction({ getToken });
  if (onSignedOut) needFunction({ onSignedOut });
  const { document } = globalThis;
  const session = (
    /** @type {any} */
    getToken.session?.()
  );
  const over = new AbortController();
  const listeners = /* @__PURE__ */ new Map();
  const readers = /* @__PURE__ */ new Set();
  const entries = /* @__PURE__ */ new Map();
  const sent = /* @__PURE__ */ new Map();
  const requests = /* @__PURE__ */ new Map();
  const pings = /* @__PURE__ */ new Map();
  const late = /* @__PURE__ */ new Set();
  let state = "connecting";
  let run = 0;
  let socket;
  let fixed = 0;
  let successor;
  let asking;
  let timer;
  let due;
  let renewer;
  let renewal;
  let pacer;
  let drainer;
  let worked = 0;
  let measured = 0;
  let flushed = -PACE_MS;
  let failures = 0;
  let refusals = 0;
  let askedDelay;
  let welcomed = Infinity;
  let beat = 5e3;
  let heard = 0;
  let lead = NaN;
  let latest = 0;
  let silent = false;
  let ordered = false;
  let mustResume = false;
  let lastId = 0;
  function emit(event, value) {
    const called = listeners.get(event);
    called?.forEach((listener) => call(listener, value));
    if (!called && /^(error|gap)$/.test(event)) console.warn("relay", event, value);
  }
  function inform(some, handler, event, value) {
    const able = some.filter((reader) => reader[handler]);
    able.forEach((reader) => call(reader[handler], value));
    if (!able.length) emit(event, value);
  }
  function enter(next, detail) {
    state = next;
    emit("state", { state, ...detail });
  }
  function after(ms, next) {
    clearTimeout(timer);
    due = performance.now() + ms;
    timer = setTimeout(next, ms);
  }
  function backoff() {
    return Math.random() * Math.min(BACKOFF_LAST_MS, BACKOFF_FIRST_MS * 2 ** failures++);
  }
  async function withToken(use, fail) {
    const mine = run;
    const controller = asking = new AbortController();
    const { signal } = controller;
    const patience = setTimeout(() => controller.abort(Error("The issuer does not answer.")), PATIENCE_MS);
    const aborted = new Promise((_, reject) => signal.onabort = () => reject(signal.reason));
    try {
      const grant = await Promise.race([(async () => getToken({ signal }))(), aborted]);
      if (!grant?.wsToken || !(url ?? grant.endpoint)) throw Error("getToken returned no token and endpoint.");
      if (mine === run) use(grant);
    } catch (error) {
      const { status = 0, code, message, retryable, retryAfterMs } = error ?? {};
      let wait = bounded(retryAfterMs);
      if (wait !== void 0) wait += Math.random() * BACKOFF_FIRST_MS;
      if (mine === run) fail({ status, reason: code || message || `${error}` }, wait, retryable === false);
    } finally {
      clearTimeout(patience);
    }
  }
  function connect() {
    run++;
    enter("connecting");
    if (state === "connecting")
      withToken(open, (why, wait, final) => {
        askedDelay = wait;
        if (!final || why.status !== 401) return leave(final && "stopped", why);
        signOut(why);
        session?.then((known) => known?.end());
      });
  }
  function open({ endpoint, wsToken }) {
    const transport = (
      /** @type {Transport} */
      transports[(refusals >> 1) % transports.length]
    );
    refusals++;
    if (transport === "sse") socket = openFixed({ endpoint, wsToken });
    else {
      const opened = openSocket(WebSocket, url ?? endpoint, firstQuery(), transport, wsToken, {
        onopen,
        onmessage: (text) => opened === socket && receive(text),
        onclose: (code, reason) => opened === socket && ended(code, reason)
      });
      socket = opened;
    }
    after(OPEN_MS, () => ended(1006, "no_answer"));
  }
  function onopen() {
    refusals = --refusals & ~1;
    after(PATIENCE_MS, () => {
      refusals += 2;
      ended(1006, "no_welcome");
    });
  }
  function openFixed({ endpoint, wsToken }) {
    const wants = wanted();
    const lost = [...entries.values()].filter(({ seq, readers: readers2 }) => ordered && seq && readers2[0]);
    const since = Object.fromEntries(lost.map((entry) => [entry.channel, position(entry)]));
    const names = [.../* @__PURE__ */ new Set([...Object.keys(since), ...wants.keys()])];
    const channels2 = names.slice(0, HEADER_CHANNELS);
    const interval_ms = Math.min(wants.size && 1e3, ...wants.values());
    const id = ++lastId;
    const opened = openEvents(url ?? endpoint, { channels: channels2, interval_ms, since }, compress ?? interval_ms, wsToken, {
      onopen: () => opened === socket && onopen(),
      onmessage(text) {
        if (opened === successor) {
          socket.close();
          socket = opened;
        }
        if (opened !== socket) return;
        if (fixed !== id) {
          fixed = id;
          successor = void 0;
          mustResume = false;
          sent.clear();
          clearTimeout(renewer);
          for (const name of names) sent.set(name, interval_ms);
          for (const name of names.slice(HEADER_CHANNELS))
            complain(name, { code: "too_many_channels", message: "At most 256." });
          for (const entry of lost) entry.resuming = id;
        }
        receive(text);
      },
      onclose(code, reason, waitMs) {
        if (opened === socket) ended(code, reason, waitMs);
        if (opened === successor) notRenewed({ reason }, bounded(waitMs));
      }
    });
    return opened;
  }
  function firstQuery() {
    const [interval, names = []] = !mustResume && missing()[0] || [];
    const first = names.slice(0, URL_CHANNELS);
    for (const name of first) sent.set(name, interval);
    const query = first.length ? [`channels=${first.map(encodeURIComponent)}`, `interval_ms=${interval}`] : [];
    return compress ?? [...readers].some((reader) => reader.interval) ? [...query, "compress=1"] : query;
  }
  function welcome(frame) {
    welcomed = heard;
    askedDelay = void 0;
    lead = frame.ts - heard;
    beat = bounded(frame.heartbeat_ms) || beat;
    enter("open", { connection: frame.connection, transport: carrier() });
    emit("welcome", frame);
    flush();
    if (socket) watch();
  }
  function renewIn(ms) {
    clearTimeout(renewer);
    renewer = setTimeout(withToken, ms, refresh, notRenewed);
  }
  function notRenewed(why, wait, final) {
    successor &&= successor.close?.() ?? true;
    emit("error", { code: "not_refreshed", message: why.reason });
    if (!final) renewIn(wait ?? backoff());
  }
  function refresh(grant) {
    if (fixed) {
      successor?.close?.();
      successor = openFixed(grant);
      clearTimeout(renewer);
      renewer = setTimeout(notRenewed, PATIENCE_MS, { reason: "no_welcome" });
      return;
    }
    requests.set(renewal = ++lastId, []);
    send({ type: "refresh", id: renewal, token: grant.wsToken });
  }
  function ended(code, reason, waitMs) {
    if (performance.now() - welcomed >= GOOD_MS) {
      failures = 0;
      if (fixed) refusals = 1;
    }
    if (code !== 1001 && code !== 1012) askedDelay = code === 4008 && !failures ? failures++ : bounded(waitMs);
    if (code === 4501) signOut({ code, reason });
    else leave((STOP.includes(code) || code >= 4500) && "stopped", { code, reason });
  }
  function signOut(why) {
    const change2 = { ...why, signedOut: true };
    leave("stopped", change2);
    call(onSignedOut, change2);
  }
  function leave(final, why) {
    const mine = ++run;
    [timer, renewer].forEach(clearTimeout);
    asking?.abort();
    const left = [socket, successor];
    asking = socket = successor = void 0;
    for (const each of left) each?.close?.();
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
    if (mine !== run) return;
    if (final) {
      over.abort();
      return enter(final, why);
    }
    const retryInMs = askedDelay ?? backoff();
    after(retryInMs, connect);
    enter("waiting", { ...why, retryInMs });
  }
  const carrier = () => welcomed < Infinity ? fixed ? "sse" : "websocket" : void 0;
  function connectSoon() {
    if (state === "waiting" && askedDelay === void 0) after(Math.random() * BACKOFF_FIRST_MS, connect);
  }
  function watch() {
    const now = performance.now();
    if (now - due > beat) heard = Math.max(heard, now - 1.5 * beat);
    const silence = now - heard;
    if (silence >= 2.5 * beat) return ended(1006, "dead_link");
    if (silence >= 1.5 * beat) setSilent(true);
    after((silent ? 2.5 : 1.5) * beat - silence, watch);
  }
  function setSilent(quiet) {
    silent = quiet;
    emit("silence", quiet);
    entries.forEach(settle);
  }
  function receive(text) {
    heard = performance.now();
    try {
      read(JSON.parse(text));
    } catch {
      emit("error", { code: "malformed_frame" });
    }
  }
  function read(frame) {
    const { type, id, channel, seq, ts } = frame;
    if (typeof type !== "string") throw frame;
    if (type === "batch") return frame.frames.forEach(read);
    const known = entries.get(channel);
    const former = channel ? seq > known?.seq && known.last?.ts : latest;
    if (former - ts > 1e3 && type !== "snapshot") lead = latest = -Infinity;
    if (ts - heard > lead) lead = ts - heard;
    if (ts > latest) latest = ts;
    if (silent) setSilent(false);
    if (type === "update" || type === "snapshot") return deliver(frame);
    if (type === "welcome") return welcome(frame);
    if (type === "error") return failed(frame);
    if (type === "pong") pings.get(id)?.(heard);
    pings.delete(id);
    if (type === "status") judge(entryOf(channel), frame.state);
    if (type === "subscribed") acknowledged({ id: fixed, ...frame });
    if (type === "unsubscribed" && !id) withdrawn(frame.channels);
    if (type === "token_expiring") renewIn(Math.random() * (bounded(frame.expires_in_ms) ?? PATIENCE_MS) / 2);
    if (type === "reconnect") askedDelay = bounded(frame.delay_ms);
    requests.delete(id);
    emit(type, frame);
  }
  function deliver(frame) {
    const { type, channel, epoch, seq } = frame;
    const entry = entryOf(channel);
    if (type === "update" && !entry.epoch) return;
    const otherEpoch = type === "snapshot" && epoch !== entry.epoch;
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
      entry.last = late.has(entry) && entry.last.type === "snapshot" ? whole(entry, frame) : frame;
      if (ordered) show(entry);
      else late.add(entry);
      if (!drainer && !ordered) drain(heard);
    }
    entry.heardIn = run;
    if (type === "update") entry.quiet = false;
    settle(entry);
  }
  function show(entry) {
    const { last, readers: readers2 } = entry;
    late.delete(entry);
    for (const { onSnapshot, onUpdate } of readers2) call(last.type === "snapshot" ? onSnapshot : onUpdate, last);
  }
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
  const whole = ({ epoch }, frame) => ({ ...frame, type: "snapshot", epoch });
  const position = ({ epoch, seq }) => ({ epoch, seq });
  function lose(entry, found) {
    const { channel, readers: readers2 } = entry;
    inform(readers2, "onGap", "gap", { channel, since: position(entry), ...position(found) });
    entry.seq = 0;
  }
  function entryOf(channel) {
    let entry = entries.get(channel);
    if (!entry) {
      const takers = [...readers].filter((reader) => reader.takes.test(channel));
      entry = { channel, seq: 0, heardIn: -1, quiet: false, state: "stale", readers: takers };
      entries.set(channel, entry);
    }
    return entry;
  }
  function judge(entry, verdict) {
    entry.quiet = verdict === "stale";
    settle(entry);
  }
  function settle(entry) {
    const { channel, quiet, heardIn } = entry;
    const verdict = silent || quiet || heardIn !== run ? "stale" : "live";
    if (verdict === entry.state || verdict === "live" && late.has(entry)) return;
    entry.state = verdict;
    for (const reader of entry.readers) call(reader.onStatus, { channel, state: verdict });
    emit(verdict, { channel, state: verdict });
  }
  function send(frame) {
    socket?.send(frame);
  }
  function wanted() {
    const wants = /* @__PURE__ */ new Map();
    for (const { names, interval } of readers)
      for (const name of names) wants.set(name, Math.min(interval, wants.get(name) ?? interval));
    return wants;
  }
  function missing() {
    const groups = /* @__PURE__ */ new Map();
    for (const [name, interval] of wanted())
      if (sent.get(name) !== interval && !groups.get(interval)?.push(name)) groups.set(interval, [name]);
    return [...groups];
  }
  function flush() {
    pacer = 0;
    if (state !== "open") return;
    flushed = performance.now();
    const wants = wanted();
    entries.forEach((entry, channel) => entry.readers.length || (late.delete(entry), entries.delete(channel)));
    const lost = [...entries.keys()].filter((name) => mustResume && entries.get(name).seq);
    if (fixed) {
      for (const name of sent.keys()) if (!wants.has(name)) sent.delete(name);
      if (mustResume || [...wants].some(([name, interval]) => !(sent.get(name) <= interval))) succeed();
      return;
    }
    const gone = [...sent.keys()].filter((name) => mustResume || !wants.has(name));
    mustResume = false;
    ask("unsubscribe", gone);
    ask("subscribe", lost, 0, true);
    if (gone.length + lost.length) change();
    for (const [interval, names] of missing()) ask("subscribe", names, interval);
  }
  function succeed() {
    successor ??= !/** @type {any} */
    renewIn(0);
  }
  function ask(type, names, interval_ms, resumed) {
    for (let i = 0; i < names.length; i += FRAME_CHANNELS) {
      const channels2 = names.slice(i, i + FRAME_CHANNELS);
      const since = resumed && Object.fromEntries(channels2.map((name) => [name, position(entries.get(name))]));
      requests.set(++lastId, channels2);
      if (i) flushed += 100;
      for (const name of channels2) {
        if (resumed) entries.get(name).resuming = lastId;
        type === "subscribe" ? sent.set(name, interval_ms) : sent.delete(name);
      }
      send({ type, id: lastId, channels: channels2, interval_ms, since });
    }
  }
  function change(waitMs = 0) {
    pacer ||= setTimeout(flush, Math.max(waitMs, flushed + (fixed ? JOIN_MS : PACE_MS) - performance.now()));
  }
  function acknowledged({ id, channels: channels2, rejected }) {
    for (const answer of [...channels2, ...rejected]) {
      const { channel, mode, seq, state: verdict = "stale", recovered } = answer;
      if (mode) ordered = mode === "stream";
      else complain(channel, answer);
      if (!sent.has(channel)) sent.set(channel, -1);
      if (/[*>]/.test(channel)) continue;
      const entry = entryOf(channel);
      if (entry.resuming) {
        mustResume ||= !id;
        if (mustResume || entry.resuming !== id) continue;
        entry.resuming = 0;
        if (!recovered && (answer.epoch !== entry.epoch || seq > entry.seq)) lose(entry, answer);
        else if (seq === entry.seq) entry.heardIn = run;
      }
      judge(entry, seq === 0 ? "live" : verdict);
    }
    if (mustResume) flush();
  }
  function failed(frame) {
    const ids = frame.code === "rate_limited" ? [...requests.keys()] : [frame.id];
    const names = ids.flatMap((id) => requests.get(id) ?? []);
    if (ids.includes(renewal) && requests.has(renewal)) renewIn(Math.max(bounded(frame.retry_after_ms) ?? 0, backoff()));
    for (const id of ids) requests.delete(id);
    if (!names.length) return frame.code === "nothing_subscribed" && readers.size ? void 0 : emit("error", frame);
    if (!frame.retryable) return names.forEach((name) => complain(name, frame));
    for (const name of names) {
      sent.set(name, -1);
      if (entries.get(name)?.resuming) mustResume = true;
    }
    change(bounded(frame.retry_after_ms) ?? PACE_MS);
  }
  function complain(channel, { code, message }) {
    const asked = [...readers].filter((reader) => reader.names.includes(channel));
    inform(asked, "onError", "error", { channel, code, message });
  }
  function withdrawn(names) {
    const takes = matcher(names);
    for (const entry of entries.values()) if (takes.test(entry.channel)) judge(entry, "stale");
    for (const name of names) complain(name, { code: "forbidden", message: "The new token forbids this." });
  }
  function subscribe(channelOrList, { interval_ms = 0, ...handlers } = {}) {
    const names = [channelOrList].flat();
    if (!names.length || names.some((name) => !name || typeof name !== "string"))
      throw TypeError("subscribe needs channels.");
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
  session?.then((known) => known?.join(() => signOut({ reason: "signed_out" }), over.signal));
  globalThis.addEventListener?.("online", connectSoon, over);
  document?.addEventListener("visibilitychange", seen, over);
  if (channels?.length)
    subscribe(channels, { onSnapshot: (frame) => emit("snapshot", frame), onUpdate: (frame) => emit("update", frame) });
  queueMicrotask(() => state === "connecting" && connect());
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
      listeners.set(event, (listeners.get(event) ?? /* @__PURE__ */ new Set()).add(listener));
      return () => listeners.get(event)?.delete(listener);
    },
    serverNow: () => performance.now() + lead,
    ping: () => new Promise((resolve) => {
      if (state !== "open" || fixed) return resolve(NaN);
      const at = performance.now();
      pings.set(++lastId, (now) => resolve(now - at));
      send({ type: "ping", id: lastId });
    }),
    close() {
      if (over.signal.aborted) return;
      clearTimeout(pacer);
      late.clear();
      leave("closed", { code: 1e3, reason: "" });
    }
  };
}
export {
  TokenError,
  createStream,
  fetchToken,
  keepSession,
  logOut
};
