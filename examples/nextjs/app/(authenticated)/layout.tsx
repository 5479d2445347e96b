import Link from 'next/link';
import type { ReactNode } from 'react';

import { renewal } from '@/lib/api';

import { LogOutButton } from './log-out-button';
import { SessionKeeper } from './session-keeper';

/**
 * The shell of all pages behind the log-in. It checks nothing: a layout is not rendered again when the visitor goes from
 * page to page, so a check here would be missing there. Each page awaits `verifySession` itself.
 */
export default async function AuthenticatedLayout({ children }: { children: ReactNode }) {
  return (
    <SessionKeeper renewal={await renewal()}>
      <header>
        <nav aria-label="Pages">
          <Link href="/dashboard">Dashboard</Link>
          <Link href="/settings">Settings</Link>
          <Link href="/admin">Admin</Link>
        </nav>
        <LogOutButton />
      </header>
      <main>{children}</main>
    </SessionKeeper>
  );
}
