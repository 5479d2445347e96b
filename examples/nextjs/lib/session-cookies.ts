// Which cookies are a session. The relay sets them; nothing here ever sets, changes or deletes one.

const SESSION_COOKIE = process.env.SESSION_COOKIE ?? '__Host-access-token';
const REFRESH_COOKIE = process.env.REFRESH_COOKIE ?? '__Host-refresh-token';

/** What `cookies()` and `request.cookies` have in common. */
interface Cookies {
  get(name: string): { value: string } | undefined;
  has(name: string): boolean;
}

/** A long token is set in chunks: NAME.0, NAME.1, …, at most five. */
const CHUNKS = [0, 1, 2, 3, 4];

/** Return the access token, or null if its cookie is missing: browsers delete it when the token ends. */
export function accessToken(cookies: Cookies): string | null {
  const whole = cookies.get(SESSION_COOKIE)?.value;
  const chunks = CHUNKS.map((number) => cookies.get(`${SESSION_COOKIE}.${number}`)?.value ?? '').join('');
  return whole || chunks || null;
}

/** Tell whether there is a refresh cookie. Its value is for the relay alone. */
export function hasRefreshCookie(cookies: Cookies): boolean {
  return cookies.has(REFRESH_COOKIE) || cookies.has(`${REFRESH_COOKIE}.0`);
}

/** Tell whether there may be a session. Only the backend knows whether it is valid. */
export function mayHaveSession(cookies: Cookies): boolean {
  return accessToken(cookies) !== null || hasRefreshCookie(cookies);
}
