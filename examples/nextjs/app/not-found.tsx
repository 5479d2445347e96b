import Link from 'next/link';
import { connection } from 'next/server';

export default async function NotFound() {
  await connection(); // a page of the build would have no nonce
  return (
    <main className="card">
      <h1>There is no such page</h1>
      <p>
        <Link href="/dashboard" prefetch={false}>
          Go to the dashboard
        </Link>
      </p>
    </main>
  );
}
