// The addresses between which a visitor is sent, and the check of `returnTo`. Pages, the boundary and the browser use it.

export const HOME = '/dashboard';
export const LOGIN = '/login';

/** In this time a second renewal for the same page does not help, so the visitor is sent to the log-in instead. */
const ONE_TRY_MS = 30_000;

/** The mark in the URL of a page whose session has just been renewed: when, by the server's clock. */
const RENEWED = 'renewed';

const MAX_CHARS = 2_048;
const ANY_ORIGIN = 'http://a.invalid';

/** Pages that end or begin a session: nobody returns to one. */
const NEVER = ['/login/', '/logout/', '/session/', '/api/auth/'];

export type Query = Record<string, string | string[] | undefined>;

/**
 * Return `value` if it is one text and a page of this application, else the home page. Otherwise a link to our own log-in
 * could lead to another site (open redirect). It must be such a page in every spelling that a browser or a server reads.
 */
export function safeReturnTo(value: string | string[] | undefined): string {
  if (Array.isArray(value)) return value.length === 1 ? safeReturnTo(value[0]) : HOME;
  if (value === undefined || value.length > MAX_CHARS) return HOME;
  try {
    const decoded = decodeURIComponent(value);
    if (!isPath(value) || !isPath(decoded)) return HOME;
    // a server decodes the path that the browser has resolved, or resolves it once more
    const routes = [decodeURIComponent(resolved(value)), resolved(decoded)].map(asRoute);
    return routes.some((route) => NEVER.some((own) => route.startsWith(own))) ? HOME : value;
  } catch {
    return HOME;
  }
}

/** One leading slash, and nothing that browsers drop, replace or read as a slash; also when `.` and `..` are resolved. */
function isPath(text: string): boolean {
  return /^\/(?!\/)[^\\\p{C}\p{Z}]*$/u.test(text) && !resolved(text).startsWith('//');
}

function resolved(path: string): string {
  return new URL(path, ANY_ORIGIN).pathname;
}

/** Return a path as a server takes it that ignores letter case, empty segments and parameters. */
function asRoute(path: string): string {
  const segments = path.toLowerCase().split('/').map((segment) => segment.split(';')[0]);
  return `/${segments.filter(Boolean).join('/')}/`;
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
  const url = new URL(returnTo, ANY_ORIGIN);
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
