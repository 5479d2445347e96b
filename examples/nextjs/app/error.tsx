'use client';

/** What a visitor sees when a page can't be made. In production only `digest` of a server's error reaches the browser. */
export default function ErrorPage({ error, retry }: { error: unknown; retry: () => void }) {
  const digest = error instanceof Error && 'digest' in error ? error.digest : null;
  return (
    <main className="card">
      <h1>This page can’t be shown now</h1>
      <p role="alert">
        {digest === 'backend_unavailable'
          ? 'The service behind this page does not answer. You are still logged in. Try again in a moment.'
          : 'Something is wrong on our side.'}
      </p>
      <button type="button" onClick={() => retry()}>
        Try again
      </button>
    </main>
  );
}
