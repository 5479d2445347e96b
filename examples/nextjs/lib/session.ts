// The session as the browser sees it: no token, only whether it goes on. One renewal for all tabs, one log-out for all.

import { HOME, loginPath, withoutMark } from '@/lib/paths';

export type Renewal = 'renewed' | 'ended' | 'unavailable';

const CHANNEL = 'session';
const RENEWED_AT = 'session-renewed-at';

let running: Promise<Renewal> | undefined;
let leaving = false;

/** Renew the session with `POST /api/auth/refresh`. Callers that come together share one request. */
export function renewSession(): Promise<Renewal> {
  running ??= refresh().finally(() => (running = undefined));
  return running;
}

/** Renew the session unless another tab has done so since `since`. One tab works at a time. */
export async function renewOnce(since: number): Promise<Renewal> {
  return navigator.locks.request('session-renewal', async () =>
    Number(localStorage.getItem(RENEWED_AT)) > since ? 'renewed' : renewSession(),
  );
}

async function refresh(): Promise<Renewal> {
  try {
    const answer = await fetch('/api/auth/refresh', { method: 'POST', cache: 'no-store' });
    if (answer.status === 401) return 'ended';
    if (!answer.ok) return 'unavailable';
  } catch {
    return 'unavailable';
  }
  localStorage.setItem(RENEWED_AT, String(Date.now()));
  return 'renewed';
}

/** End the session here, at the relay and at the backend, and tell the other tabs. Returns what went wrong, or null. */
export async function logOut(): Promise<string | null> {
  try {
    const answer = await fetch('/api/auth/logout', { method: 'POST' });
    if (!answer.ok) return (await answer.json()).message;
  } catch {
    return 'The log-out did not arrive. You are still logged in.';
  }
  leaving = true; // the message comes back to this tab too
  const channel = new BroadcastChannel(CHANNEL);
  channel.postMessage('ended');
  channel.close();
  location.replace(loginPath(HOME, { ended: true }));
  return null;
}

/** Call `ended` when another tab logs out. Returns a function that stops listening. */
export function onLogOutElsewhere(ended: () => void): () => void {
  const channel = new BroadcastChannel(CHANNEL);
  channel.onmessage = ended;
  return () => channel.close();
}

/** Leave for the log-in, which comes back here. A full load: it drops every page that Next.js keeps in memory. */
export function leave(): void {
  if (leaving) return;
  leaving = true;
  const search = withoutMark(location.search) ?? location.search;
  location.replace(loginPath(location.pathname + search, { ended: true }));
}
