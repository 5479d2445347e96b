'use client';

import { RelayProvider } from 'scoped-relay/react';
import { useEffect, type ReactNode } from 'react';

import { withoutMark } from '@/lib/paths';
import { leave } from '@/lib/session';

/**
 * Leaves when the session has ended, here or in another tab. All pages share the provider's stream, so it stays open from
 * page to page; the client behind it renews the session in time.
 */
export function SessionKeeper({ children }: { children: ReactNode }) {
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

  return <RelayProvider onSignedOut={leave}>{children}</RelayProvider>;
}
