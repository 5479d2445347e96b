import type { Metadata } from 'next';

import { safeReturnTo } from '@/lib/paths';

import { Renew } from './renew';

export const metadata: Metadata = { title: 'One moment' };

/**
 * Renews a session whose access cookie has ended. Only a script of the browser may do it: the answer's cookies must arrive,
 * and those of a navigation or a prefetch may be thrown away.
 */
export default async function SessionPage({ searchParams }: PageProps<'/session'>) {
  const { returnTo, at } = await searchParams;
  return (
    <main className="card">
      <h1>One moment</h1>
      <Renew returnTo={safeReturnTo(returnTo)} at={typeof at === 'string' ? at : ''} />
    </main>
  );
}
