import Link from 'next/link';

export default function NotFound() {
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
