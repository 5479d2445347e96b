'use client';

import { useState } from 'react';

import { logOut } from '@/lib/session';

export function LogOutButton() {
  const [problem, setProblem] = useState<string | null>(null);
  return (
    <div className="log-out">
      {problem !== null && <span role="alert">{problem}</span>}
      <button type="button" onClick={async () => setProblem(await logOut())}>
        Log out
      </button>
    </div>
  );
}
