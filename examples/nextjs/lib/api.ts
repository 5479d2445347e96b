// The only module that has the access token: it reads the cookie of the request that is being answered, and sends it to
// the backend as a Bearer header. `server-only` makes the build fail if a component of the browser imports it.
//
// It never redeems a refresh token. A server that renders can't store the new one in the browser, and the old one would
// be spent: the next request would log the user out.

import 'server-only';

import { cookies, headers } from 'next/headers';
import { redirect } from 'next/navigation';
import { cache } from 'react';

import { loginPath, renewalPath, wasRenewed, withQuery, type Query } from '@/lib/paths';
import { accessToken, hasRefreshCookie } from '@/lib/session-cookies';

const TIMEOUT_MS = 5_000;

export interface User {
  name: string;
  email: string;
  roles: string[];
}

/** What a page, a route handler or a server action works with. `apiFetch` calls the backend as this user. */
export interface Session {
  user: User;
  apiFetch(path: string, init?: RequestInit): Promise<Response>;
}

/** The backend refused the access token in the middle of the work. */
export class SessionEnded extends Error {
  override name = 'SessionEnded';
}

/** The backend did not answer, or answered what can't be used. `digest` is all of an error that reaches the browser. */
export class BackendUnavailable extends Error {
  override name = 'BackendUnavailable';
  readonly digest = 'backend_unavailable';
}

/**
 * Return the session of a page, or send the visitor to where a session can be had. Each page awaits it before it asks for
 * data. A layout is no place for it: layouts are not rendered again when the visitor goes from page to page.
 */
export async function verifySession(path: string, query: Query = {}): Promise<Session> {
  const here = withQuery(path, query);
  const user = await currentUser();
  if (user === null) redirect(await wayToSession(here, query));
  return {
    user,
    async apiFetch(path, init) {
      const answer = await callBackend(path, init);
      if (answer === null || answer.status === 401) redirect(await wayToSession(here, query));
      return answer;
    },
  };
}

/** Return the session of a route handler or a server action, or null. Both answer for themselves instead of a redirect. */
export async function findSession(): Promise<Session | null> {
  const user = await currentUser();
  if (user === null) return null;
  return {
    user,
    async apiFetch(path, init) {
      const answer = await callBackend(path, init);
      if (answer === null || answer.status === 401) throw new SessionEnded();
      return answer;
    },
  };
}

/** Read a JSON answer of the backend. Any other answer is an error that the error page explains. */
export async function readJson<Body>(answer: Response): Promise<Body> {
  if (!answer.ok) throw new BackendUnavailable(`The backend answered ${answer.status}.`);
  try {
    return await answer.json();
  } catch {
    throw new BackendUnavailable('The backend did not answer with JSON.');
  }
}

/** Ask the backend who this is: once per request, however many components want to know. */
const currentUser = cache(async (): Promise<User | null> => {
  const answer = await callBackend('/auth/me');
  if (answer === null || answer.status === 401) return null;
  return (await readJson<{ user: User }>(answer)).user;
});

/** Call the backend with this request's own token, and keep nothing. Null: there is no token. */
async function callBackend(path: string, init: RequestInit = {}): Promise<Response | null> {
  const token = accessToken(await cookies());
  if (token === null) return null;
  const origin = process.env.BACKEND_URL ?? 'http://127.0.0.1:9000';
  const url = new URL(path, origin);
  if (url.origin !== new URL(origin).origin) throw new Error(`${path} is not a path of the backend.`);

  const sent = new Headers(init.headers);
  sent.set('Authorization', `Bearer ${token}`);
  const address = (await headers()).get('x-forwarded-for');
  if (address !== null) sent.set('X-Forwarded-For', address);
  try {
    return await fetch(url, {
      ...init,
      headers: sent,
      cache: 'no-store', // one user's answer is never another's
      redirect: 'error', // the token goes to the backend and nowhere else
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
  } catch (error) {
    throw new BackendUnavailable('The backend did not answer.', { cause: error });
  }
}

/** Return where a session can be had: at the page that renews it, once, or at the log-in. */
async function wayToSession(here: string, query: Query): Promise<string> {
  const jar = await cookies();
  const now = Date.now();
  if (hasRefreshCookie(jar) && !wasRenewed(query, now)) return renewalPath(here, now);
  return loginPath(here, { ended: hasRefreshCookie(jar) || accessToken(jar) !== null });
}
