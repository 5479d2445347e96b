import { useEffect, useState } from 'react';
import { RelayProvider } from 'scoped-relay/react';
import { Dashboard } from './Dashboard';
import { Login } from './Login';

type Page = 'loading' | 'login' | 'dashboard';

export function App() {
  const [page, setPage] = useState<Page>('loading');
  const [ended, setEnded] = useState(false);

  // No script can see the session's cookie, so the page asks
  useEffect(() => {
    const controller = new AbortController();
    fetch('/api/auth/me', { signal: controller.signal }).then(
      (answer) => setPage(answer.ok ? 'dashboard' : 'login'),
      () => controller.signal.aborted || setPage('login'),
    );
    return () => controller.abort();
  }, []);

  if (page === 'loading') return null;
  if (page === 'login') return <Login ended={ended} onLogin={() => setPage('dashboard')} />;
  return (
    <RelayProvider
      endpoint="prices"
      onSignedOut={() => {
        setEnded(true);
        setPage('login');
      }}
    >
      <Dashboard />
    </RelayProvider>
  );
}
