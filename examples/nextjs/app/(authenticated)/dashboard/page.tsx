import type { Metadata } from 'next';

import { readJson, verifySession } from '@/lib/api';

import { LivePrices, type Quote } from './live-prices';

export const metadata: Metadata = { title: 'Dashboard' };

/** The server renders the first prices, so the page is complete before a socket is open. */
export default async function DashboardPage({ searchParams }: PageProps<'/dashboard'>) {
  const { user, apiFetch } = await verifySession('/dashboard', await searchParams);
  const { prices } = await readJson<{ prices: Quote[] }>(await apiFetch('/prices'));
  return (
    <>
      <h1>Prices for {user.name}</h1>
      <LivePrices first={prices} />
      <p>
        <a href="/dashboard/prices.csv" download>
          Download as CSV
        </a>
      </p>
    </>
  );
}
