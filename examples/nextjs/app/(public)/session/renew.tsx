'use client';

import { useEffect, useState } from 'react';

import { loginPath, renewedPath } from '@/lib/paths';
import { renewSession } from '@/lib/session';

/** Renews once, then goes on: to the page, or to the log-in. If nobody answers it says so and waits for the visitor. */
export function Renew({ returnTo, at }: { returnTo: string; at: string }) {
  const [attempt, setAttempt] = useState(0);
  const [silent, setSilent] = useState(false);

  useEffect(() => {
    let gone = false;
    void renewSession().then((renewal) => {
      if (gone) return;
      if (renewal === 'renewed') location.replace(renewedPath(returnTo, at));
      else if (renewal === 'ended') location.replace(loginPath(returnTo, { ended: true }));
      else setSilent(true);
    });
    return () => {
      gone = true;
    };
  }, [attempt, returnTo, at]);

  if (!silent) return <p role="status">Your session is being renewed.</p>;
  return (
    <>
      <p role="alert">The log-in service does not answer. You are still logged in. Try again in a moment.</p>
      <button
        type="button"
        onClick={() => {
          setSilent(false);
          setAttempt(attempt + 1);
        }}
      >
        Try again
      </button>
    </>
  );
}
