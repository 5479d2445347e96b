// @ts-check
// The issuer: a session cookie goes there, a scoped token comes back

export class TokenError extends Error {
  constructor(message, refusal) {
    super(message);
    Object.assign(this, { name: 'TokenError', code: '' }, refusal);
  }
}

/**
 * @param {string} path
 * @param {object} [asked] for a token
 * @param {AbortSignal} [signal]
 */
export async function post(path, asked, signal) {
  const response = await fetch(path, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify(asked),
    cache: 'no-store',
    credentials: 'include', // of another origin too
    signal,
  });
  const body = (await response.json().catch(() => {})) ?? {};
  const { ok, status, headers } = response;
  if (ok && (!asked || body.wsToken)) return body;
  const retryAfterMs = parseFloat(/** @type {any} */ (headers.get('retry-after'))) * 1000;
  const { code, message, retryable } = body;
  // Any other form is a proxy's
  if (code && message && typeof retryable === 'boolean')
    throw new TokenError(message, { code, status, retryable, retryAfterMs });
  throw new TokenError(`The answer ${status} is not a relay's.`, { status, retryAfterMs });
}

const load = () => import('./relay-session.js');

/** @type {typeof import('./relay-client.js').logOut} */
export const logOut = (options) => load().then((file) => file.logOut(post, options));

/** @type {typeof import('./relay-client.js').keepSession} */
export function keepSession(options) {
  const over = new AbortController();
  load().then((file) => file.keepSession(post, over, options));
  return () => over.abort();
}

/** @type {typeof import('./relay-client.js').fetchToken} */
export function fetchToken({ path = '/auth/ws-token', endpoint, channels, refreshPath } = {}) {
  // Without the file the client works, but renews nothing
  const session = async () =>
    globalThis.document && load().then((file) => file.sessionFor(post, path, refreshPath), console.warn);
  /** @param {{ signal?: AbortSignal }} [attempt] */
  async function getToken({ signal } = {}) {
    const since = Date.now();
    const ask = () => post(path, { endpoint, channels }, signal);
    const grant = await ask().catch(async (refusal) => {
      const { status, retryable } = refusal;
      if (status !== 401 || retryable !== false || !(await (await session())?.refresh(signal))) throw refusal;
      return ask();
    });
    session().then((known) => known?.heard(grant, since));
    return grant;
  }
  return Object.assign(getToken, { session });
}
