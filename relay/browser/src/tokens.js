// @ts-check
// The issuer: a session cookie goes there, a scoped token comes back

export class TokenError extends Error {
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
    const body = (await response.json().catch(() => {})) ?? {};
    const { ok, status, headers } = response;
    if (ok && body.wsToken) return body;
    const retryAfterMs = parseFloat(headers.get('retry-after') ?? '') * 1000;
    const { code, message, retryable } = body;
    // Any other form is a proxy's
    if (code && message && typeof retryable === 'boolean')
      throw new TokenError(message, { code, status, retryable, retryAfterMs });
    throw new TokenError(`The answer ${status} does not come from a relay.`, { status, retryAfterMs });
  };
}
