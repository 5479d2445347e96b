import Link from 'next/link';
import type { ReactNode } from 'react';

import { LogOutButton } from './log-out-button';
import { SessionKeeper } from './session-keeper';
import { Ticker } from './ticker';

/**
 * The shell of all pages behind the log-in. It checks nothing: a layout is not rendered again when the visitor goes from
 * page to page, so a check here would be missing there. Each page awaits `verifySession` itself.
 */
export default function AuthenticatedLayout({ children }: { children: ReactNode }) {
  return (
    <SessionKeeper>
      <header>
        <nav aria-label="Pages">
          <Link href="/dashboard">Dashboard</Link>
          <Link href="/settings">Settings</Link>
          <Link href="/admin">Admin</Link>
        </nav>
        <Ticker symbol="BTC-USD" />
        <LogOutButton />
      </header>
      <main>{children}</main>
    </SessionKeeper>
  );
}
