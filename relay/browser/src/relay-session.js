// @ts-check
// The login session behind the tokens, in a browser; the client loads this file beside its first token. All tabs of an
// origin share the session's cookies, so they tell each other what happens

/** @typedef {(path: string, asked?: object, signal?: AbortSignal) => Promise<any>} Post */

const SHARE = 0.8; // of a session's life, then it is renewed
const LOOK_MS = 5000; // a timer stands still while the computer sleeps
const RETRY_MS = 15_000;

const sessions = new Map(); // by the issuer's origin: one on a page, however many streams

const originOf = (path) => /^\w+:..[^/]+/.exec(path)?.[0] ?? '';

/** @param {Post} post */
export async function logOut(post, { path = '/api/auth/logout' } = {}) {
  await post(path);
  sessionFor(post, path).end();
}

/**
 * @param {Post} post
 * @param {AbortController} over
 * @param {Parameters<typeof import('./relay-client.js').keepSession>[0]} [options]
 */
export async function keepSession(post, over, { path = '/api/auth/me', refreshPath, onUser, onSignedOut } = {}) {
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
    // The route has tried to renew it
    if (status === 401 && answer.retryable === false) return session.end();
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

async function look(path, signal) {
  const response = await fetch(path, { cache: 'no-store', credentials: 'include', signal });
  return { status: response.status, ...(await response.json()) };
}

/**
 * @param {Post} post
 * @param {string} path of the issuer
 * @param {string} [refreshPath]
 */
export function sessionFor(post, path, refreshPath) {
  const origin = originOf(path);
  let session = sessions.get(origin);
  if (!session) {
    const url = refreshPath ?? `${origin}/api/auth/refresh`;
    session = start(`scoped-relay ${origin}`, (signal) => post(url, undefined, signal));
    sessions.set(origin, session);
  }
  return session;
}

function start(name, ask) {
  const sender = new BroadcastChannel(name);
  const receiver = new BroadcastChannel(name);
  const streams = new Set();
  let due = Infinity;
  let life = NaN;
  let granted = 0;
  let renewed = 0;
  let timer;
  let acknowledge = () => {};

  function receive({ ended, at }) {
    if (!ended) {
      renewed = at;
      due = at + SHARE * life || Infinity;
    } else if (at >= granted) {
      // Otherwise it was another session, and this tab slept
      due = Infinity;
      for (const stop of [...streams]) stop();
    }
    watch();
    acknowledge();
  }

  // Resolves when the tabs have it: this one hears itself as the others do
  const tell = (ended) =>
    new Promise((/** @type {(_: void) => void} */ resolve) => {
      acknowledge = resolve;
      sender.postMessage({ ended, at: Date.now() });
    });

  // False: the session is over. One tab asks, and the others wait for it
  async function refresh(signal) {
    const since = Date.now();
    const once = async () => {
      if (renewed >= since) return true;
      try {
        await ask(signal);
      } catch (/** @type {any} */ error) {
        if (error.retryable === false || (error.status > 400 && error.status < 429)) return false;
        throw error;
      }
      await tell(false); // before another tab gets the lock
      return true;
    };
    return navigator.locks ? navigator.locks.request(name, once) : once();
  }

  async function renew() {
    if (!(await refresh(AbortSignal.timeout(RETRY_MS)))) await tell(true);
  }

  function watch() {
    clearTimeout(timer);
    if (due === Infinity || document.hidden) return;
    const now = Date.now();
    if (now >= due) {
      due = now + RETRY_MS;
      renew().catch(() => {}); // again after RETRY_MS
    }
    timer = setTimeout(watch, Math.min(due - now, LOOK_MS));
  }

  receiver.onmessage = ({ data }) => receive(data);
  document.addEventListener('visibilitychange', watch);

  return {
    refresh,
    end: () => tell(true),
    /** Call `stop` when the session has ended. */
    join(stop, signal) {
      streams.add(stop);
      signal.addEventListener('abort', () => streams.delete(stop));
    },
    /** Take what the issuer's answer says of the session. */
    heard({ session_expires_in: left, session_lifetime: all }, since) {
      granted = since;
      life = all * 1000;
      due = all ? Date.now() + left * 1000 - (1 - SHARE) * life : Infinity;
      watch();
    },
  };
}
