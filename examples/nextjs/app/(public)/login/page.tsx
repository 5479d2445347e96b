import type { Metadata } from 'next';

import { safeReturnTo } from '@/lib/paths';

import { LoginForm } from './login-form';

export const metadata: Metadata = { title: 'Log in' };

export default async function LoginPage({ searchParams }: PageProps<'/login'>) {
  const { returnTo, ended } = await searchParams;
  return (
    <main className="card">
      <h1>Log in</h1>
      {ended === '1' && <p role="status">Your session has ended. Log in to go on.</p>}
      <LoginForm returnTo={safeReturnTo(returnTo)} />
    </main>
  );
}
