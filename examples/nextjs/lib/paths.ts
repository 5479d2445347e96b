// The addresses between which a visitor is sent, and the check of `returnTo`. Pages, the boundary and the browser use it.

export const HOME = '/dashboard';
export const LOGIN = '/login';

/** In this time a second renewal for the same page does not help, so the visitor is sent to the log-in instead. */
const ONE_TRY_MS = 30_000;

/** The mark in the URL of a page whose session has just been renewed: when, by the server's clock. */
const RENEWED = 'renewed';

export type Query = Record<string, string | string[] | undefined>;

/**
 * Return `value` if it is a path of this application, else the home page. Otherwise a link to our own log-in could lead
 * to another site (open redirect). It must stay a path in every spelling that a browser or a server could read.
 */
export function safeReturnTo(value: string | string[] | null | undefined): string {
  if (typeof value !== 'string' || !isPath(value)) return HOME;
  let decoded: string;
  try {
    decoded = decodeURIComponent(value);
  } catch {
    return HOME;
  }
  if (!isPath(decoded)) return HOME;
  const { pathname } = new URL(value, 'http://a.invalid');
  const first = decodeURIComponent(pathname).toLowerCase().split('/')[1];
  return first === 'login' || first === 'logout' || first === 'session' ? HOME : value;
}

/** One leading slash, nothing that browsers drop or read as a slash, and the same origin when it is resolved. */
function isPath(text: string): boolean {
  if (!/^\/(?!\/)[^\\\s\p{Cc}]*$/u.test(text)) return false;
  try {
    const url = new URL(text, 'http://a.invalid');
    return url.origin === 'http://a.invalid' && !url.pathname.startsWith('//');
  } catch {
    return false;
  }
}

/** Return a page's address with its query, without the mark of a renewal. */
export function withQuery(path: string, query: Query): string {
  const kept = new URLSearchParams();
  for (const [name, values] of Object.entries(query)) {
    if (name === RENEWED || values === undefined) continue;
    for (const value of Array.isArray(values) ? values : [values]) kept.append(name, value);
  }
  return kept.size > 0 ? `${path}?${kept}` : path;
}

/** Return the address of the log-in. `ended` says that there was a session, so the boundary shows the page in any case. */
export function loginPath(returnTo: string, { ended = false } = {}): string {
  const query = new URLSearchParams(ended ? { ended: '1' } : {});
  if (returnTo !== HOME) query.set('returnTo', returnTo);
  return query.size > 0 ? `${LOGIN}?${query}` : LOGIN;
}

/** Return the address of the page that renews the session and goes on to `returnTo`. */
export function renewalPath(returnTo: string, now: number): string {
  return `/session?${new URLSearchParams({ returnTo, at: String(now) })}`;
}

/** Return `returnTo` with the mark that its session was renewed at `at`. */
export function renewedPath(returnTo: string, at: string): string {
  const url = new URL(returnTo, 'http://a.invalid');
  url.searchParams.set(RENEWED, at);
  return `${url.pathname}${url.search}${url.hash}`;
}

/** Tell whether the session was renewed for this page a moment ago. */
export function wasRenewed(query: Query, now: number): boolean {
  const at = Number(query[RENEWED]);
  return at > now - ONE_TRY_MS && at <= now;
}

/** Return a page's address without the mark, or null if there is none. */
export function withoutMark(search: string): string | null {
  const query = new URLSearchParams(search);
  if (!query.has(RENEWED)) return null;
  query.delete(RENEWED);
  return query.size > 0 ? `?${query}` : '';
}
