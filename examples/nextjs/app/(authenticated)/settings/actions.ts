'use server';

import { refresh } from 'next/cache';

import { BackendUnavailable, findSession, SessionEnded } from '@/lib/api';

/** `session_renew`: there is no valid access token. The browser renews the session and calls again. */
export interface Saved {
  code: 'saved' | 'session_renew' | 'refused' | 'unavailable';
}

/** Save the note. Anybody can call this with a POST, so it asks for the session itself. */
export async function saveSettings(form: FormData): Promise<Saved> {
  try {
    const session = await findSession();
    if (session === null) return { code: 'session_renew' };
    const note = form.get('note');
    if (typeof note !== 'string') return { code: 'refused' };
    const answer = await session.apiFetch('/settings', {
      method: 'PUT',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ note }),
    });
    if (!answer.ok) return { code: answer.status < 500 ? 'refused' : 'unavailable' };
  } catch (error) {
    if (error instanceof SessionEnded) return { code: 'session_renew' };
    if (error instanceof BackendUnavailable) return { code: 'unavailable' };
    throw error;
  }
  refresh();
  return { code: 'saved' };
}
