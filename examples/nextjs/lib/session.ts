// The session as the browser sees it: no token, only whether it goes on. `scoped-relay` renews it while a page is visible,
// and tells all tabs when it has ended.

import { logOut as endSession, TokenError } from 'scoped-relay';

import { HOME, loginPath, withoutMark } from '@/lib/paths';

export type Renewal = 'renewed' | 'ended' | 'unavailable';

let running: Promise<Renewal> | undefined;
let leaving = false;

/** Renew the session with `POST /api/auth/refresh`, now. Callers that come together share one request. */
export function renewSession(): Promise<Renewal> {
  running ??= refresh().finally(() => (running = undefined));
  return running;
}

async function refresh(): Promise<Renewal> {
  try {
    const answer = await fetch('/api/auth/refresh', { method: 'POST', cache: 'no-store' });
    if (answer.status === 401) return 'ended';
    return answer.ok ? 'renewed' : 'unavailable';
  } catch {
    return 'unavailable';
  }
}

/** End the session at the relay and at the backend, in all tabs. Returns what went wrong, or null. */
export async function logOut(): Promise<string | null> {
  leaving = true; // the stream of this tab tells of the end too
  try {
    await endSession();
  } catch (error) {
    leaving = false;
    return error instanceof TokenError ? error.message : 'The log-out did not arrive. You are still logged in.';
  }
  location.replace(loginPath(HOME, { ended: true }));
  return null;
}

/** Leave for the log-in, which comes back here. A full load: it drops every page that Next.js keeps in memory. */
export function leave(): void {
  if (leaving) return;
  leaving = true;
  const search = withoutMark(location.search) ?? location.search;
  location.replace(loginPath(location.pathname + search, { ended: true }));
}
