'use client';

import { useActionState } from 'react';

/** Sends name and password to the relay, which sets the cookies. No token comes back to this code. */
export function LoginForm({ returnTo }: { returnTo: string }) {
  const [problem, submit, pending] = useActionState(async (_: string | null, form: FormData) => {
    const problem = await logIn(form.get('email'), form.get('password'));
    // a full load: nothing that was rendered for another user is left in memory
    if (problem === null) location.replace(returnTo);
    return problem;
  }, null);

  // if the form is sent before this code runs, React keeps it and sends it then: the password is never in the URL
  return (
    <form action={submit}>
      <label>
        E-mail
        <input name="email" type="email" autoComplete="username" required />
      </label>
      <label>
        Password
        <input name="password" type="password" autoComplete="current-password" required />
      </label>
      {problem !== null && <p role="alert">{problem}</p>}
      <button disabled={pending}>Log in</button>
    </form>
  );
}

async function logIn(email: unknown, password: unknown): Promise<string | null> {
  try {
    const answer = await fetch('/api/auth/login', {
      method: 'POST',
      headers: { 'Content-Type': 'application/json' },
      body: JSON.stringify({ email, password }),
    });
    if (answer.ok) return null;
    if (answer.status === 401) return 'The e-mail or the password is wrong.';
    if (answer.status === 429) return 'Too many attempts. Wait a moment, then try again.';
  } catch {
    // no answer
  }
  return 'The log-in does not answer now. Try again in a moment.';
}
