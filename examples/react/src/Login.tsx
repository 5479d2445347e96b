import { useActionState } from 'react';

export function Login({ ended, onLogin }: { ended: boolean; onLogin: () => void }) {
  const [problem, submit, pending] = useActionState(async (_: string, form: FormData) => {
    const { email, password } = Object.fromEntries(form);
    const answer = await fetch('/api/auth/login', {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ email, password }),
    }).catch(() => null);
    if (answer?.ok) {
      onLogin();
      return '';
    }
    const body = await answer?.json().catch(() => null);
    return body?.message ?? 'The relay does not answer.';
  }, '');

  return (
    <main>
      <form action={submit}>
        <h1>Log in</h1>
        {ended && <p>Your session has ended.</p>}
        <label>
          E-mail <input name="email" type="email" autoComplete="username" required />
        </label>
        <label>
          Password <input name="password" type="password" autoComplete="current-password" required />
        </label>
        <button disabled={pending}>Log in</button>
        <p role="alert">{problem}</p>
      </form>
    </main>
  );
}
