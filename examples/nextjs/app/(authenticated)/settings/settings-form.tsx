'use client';

import { useActionState } from 'react';

import { leave, renewSession } from '@/lib/session';

import { saveSettings, type Saved } from './actions';

const TEXTS: Record<Saved['code'], string> = {
  saved: 'Saved.',
  session_renew: 'Your session has ended.',
  refused: 'This can’t be saved: a note has at most 200 characters.',
  unavailable: 'Not saved: the service does not answer. Try again in a moment.',
};

/** A form that may have been open for a long time: if the session is over by then, it is renewed and the form sent again. */
export function SettingsForm({ note }: { note: string }) {
  const [last, submit, pending] = useActionState(async (_: Last | null, form: FormData): Promise<Last> => {
    const note = String(form.get('note'));
    return { note, ...(await save(form)) };
  }, null);

  return (
    <form action={submit}>
      <label>
        Note
        <input name="note" defaultValue={last?.note ?? note} autoComplete="off" />
      </label>
      {last !== null && <p role={last.code === 'saved' ? 'status' : 'alert'}>{TEXTS[last.code]}</p>}
      <button disabled={pending}>Save</button>
    </form>
  );
}

interface Last extends Saved {
  /** What was sent: the form shows it again, because React empties a form after its action. */
  note: string;
}

async function save(form: FormData): Promise<Saved> {
  try {
    const first = await saveSettings(form);
    if (first.code !== 'session_renew') return first;
    const renewal = await renewSession();
    if (renewal === 'unavailable') return { code: 'unavailable' };
    const second = renewal === 'renewed' ? await saveSettings(form) : first;
    if (second.code === 'session_renew') leave();
    return second;
  } catch {
    return { code: 'unavailable' };
  }
}
