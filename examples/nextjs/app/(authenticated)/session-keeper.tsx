'use client';

import { useRouter } from 'next/navigation';
import { useEffect, type ReactNode } from 'react';

import type { Renewal } from '@/lib/api';
import { withoutMark } from '@/lib/paths';
import { leave, onLogOutElsewhere, renewOnce } from '@/lib/session';

const LOOK_EVERY_MS = 15_000;

interface Props {
  /** When the access token is to be renewed, or null if there is none. */
  renewal: Renewal | null;
  children: ReactNode;
}

/** Keeps the session alive while the page is visible, and leaves when it has ended: here or in another tab. */
export function SessionKeeper({ renewal, children }: Props) {
  const router = useRouter();

  useEffect(() => {
    if (renewal === null) return;
    const since = Date.now();
    const due = since + renewal.inMs;
    let busy = false;

    async function look() {
      if (busy || document.visibilityState !== 'visible' || Date.now() < due) return;
      busy = true;
      const result = await renewOnce(since);
      if (result === 'ended') leave();
      else if (result === 'renewed') router.refresh(); // the layout tells when the new token is to be renewed
      busy = result === 'renewed';
    }

    // a timer of minutes stands still while the computer sleeps, so the clock is looked at instead
    const timer = setInterval(look, LOOK_EVERY_MS);
    document.addEventListener('visibilitychange', look);
    window.addEventListener('online', look);
    return () => {
      clearInterval(timer);
      document.removeEventListener('visibilitychange', look);
      window.removeEventListener('online', look);
    };
  }, [renewal?.endsAt, router]); // another token has another end, and only that begins a new wait

  useEffect(() => onLogOutElsewhere(leave), []);

  useEffect(() => {
    const clean = withoutMark(location.search);
    // null: with the state of Next.js its router would keep the old address
    if (clean !== null) history.replaceState(null, '', location.pathname + clean + location.hash);

    function shown(event: PageTransitionEvent) {
      if (!event.persisted) return;
      // the back button has brought back a page as it was, and perhaps the session has ended since: ask the server
      document.documentElement.hidden = true;
      location.reload();
    }
    window.addEventListener('pageshow', shown);
    return () => window.removeEventListener('pageshow', shown);
  }, []);

  return children;
}
