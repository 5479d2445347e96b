// Built from relay/browser/src, where the comments are

// src/relay-session.js
var SHARE = 0.8;
var LOOK_MS = 5e3;
var RETRY_MS = 15e3;
var sessions = /* @__PURE__ */ new Map();
var originOf = (path) => /^\w+:..[^/]+/.exec(path)?.[0] ?? "";
async function logOut(post, { path = "/api/auth/logout" } = {}) {
  await post(path);
  sessionFor(post, path).end();
}
async function keepSession(post, over, { path = "/api/auth/me", refreshPath, onUser, onSignedOut } = {}) {
  const { signal } = over;
  if (signal.aborted) return;
  const session = sessionFor(post, path, refreshPath);
  const stop = () => {
    over.abort();
    onSignedOut?.();
  };
  session.join(stop, signal);
  while (!signal.aborted) {
    const since = Date.now();
    const { status, ...answer } = await look(path, signal).catch(() => ({ status: 0 }));
    if (status === 200) {
      session.heard(answer, since);
      return onUser?.(answer.user);
    }
    if (status === 401 && answer.retryable === false) return session.end();
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}
async function look(path, signal) {
  const response = await fetch(path, { cache: "no-store", credentials: "include", signal });
  return { status: response.status, ...await response.json() };
}
function sessionFor(post, path, refreshPath) {
  const origin = originOf(path);
  let session = sessions.get(origin);
  if (!session) {
    const url = refreshPath ?? `${origin}/api/auth/refresh`;
    session = start(`scoped-relay ${origin}`, (signal) => post(url, void 0, signal));
    sessions.set(origin, session);
  }
  return session;
}
function start(name, ask) {
  const sender = new BroadcastChannel(name);
  const receiver = new BroadcastChannel(name);
  const streams = /* @__PURE__ */ new Set();
  let due = Infinity;
  let life = NaN;
  let granted = 0;
  let renewed = 0;
  let timer;
  let acknowledge = () => {
  };
  function receive({ ended, at }) {
    if (!ended) {
      renewed = at;
      due = at + SHARE * life || Infinity;
    } else if (at >= granted) {
      due = Infinity;
      for (const stop of [...streams]) stop();
    }
    watch();
    acknowledge();
  }
  const tell = (ended) => new Promise((resolve) => {
    acknowledge = resolve;
    sender.postMessage({ ended, at: Date.now() });
  });
  async function refresh(signal) {
    const since = Date.now();
    const once = async () => {
      if (renewed >= since) return true;
      try {
        await ask(signal);
      } catch (error) {
        if (error.retryable === false || error.status > 400 && error.status < 429) return false;
        throw error;
      }
      await tell(false);
      return true;
    };
    return navigator.locks ? navigator.locks.request(name, once) : once();
  }
  async function renew() {
    if (!await refresh(AbortSignal.timeout(RETRY_MS))) await tell(true);
  }
  function watch() {
    clearTimeout(timer);
    if (due === Infinity || document.hidden) return;
    const now = Date.now();
    if (now >= due) {
      due = now + RETRY_MS;
      renew().catch(() => {
      });
    }
    timer = setTimeout(watch, Math.min(due - now, LOOK_MS));
  }
  receiver.onmessage = ({ data }) => receive(data);
  document.addEventListener("visibilitychange", watch);
  return {
    refresh,
    end: () => tell(true),
    /** Call `stop` when the session has ended. */
    join(stop, signal) {
      streams.add(stop);
      signal.addEventListener("abort", () => streams.delete(stop));
    },
    /** Take what the issuer's answer says of the session. */
    heard({ session_expires_in: left, session_lifetime: all }, since) {
      granted = since;
      life = all * 1e3;
      due = all ? Date.now() + left * 1e3 - (1 - SHARE) * life : Infinity;
      watch();
    }
  };
}
export {
  keepSession,
  logOut,
  sessionFor
};
