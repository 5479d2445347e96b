"""Keeping one connection alive beyond its token: when to refresh, with what, and what a refusal means.

The relay warns a minute before a connection's end. A short connection would be warned again right after each
refresh, so it is refreshed when half of its time is over. What is left of the time is not used up: ten thousand
clients that connected in one burst are warned in one moment, and each waits a random part of a quarter of it.

Asking for a token takes as long as the issuer takes, and prices must not wait for that. So the request is the one
thing here that is a task: for its own time only, and ended with its connection.
"""

import asyncio
from collections.abc import Callable
from random import Random, SystemRandom

from relay.client.connecting import TokenSource, take_token
from relay.client.errors import TokenError
from relay.client.events import RefreshFailed
from relay.client.frames import Problem, Refreshed, Welcome

RETRY_S = 1.0
"""Shortest wait after a refusal; else a quarter of what is left, so that several attempts fit in."""

_TRY_AGAIN = "invalid_token"
"""The relay's code for a token that was too old or used: another one may work."""


class Renewal:
    """The refreshing of one connection. `now` is the event loop's time, in seconds.

    `wake` is called when a token is there (or was refused) and `take` should be called.
    """

    def __init__(
        self, source: TokenSource, welcome: Welcome, *, wake: Callable[[], None], random: Random | None = None
    ) -> None:
        self._source = source
        self._wake = wake
        self._random = random or SystemRandom()
        self._server_ms = welcome.ts
        self._life_s = (welcome.expires_at - welcome.ts) / 1000
        self._ends_at = 0.0
        self._asking: asyncio.Task[str] | None = None
        self._sent_id: int | None = None
        self.due_at: float | None = None

    def warned(self, expires_in_ms: int, now: float) -> None:
        """The connection's end is near. With a token for one connection only, that is that."""
        left_s = expires_in_ms / 1000
        self._ends_at = now + left_s
        if callable(self._source) and self.due_at is None and self._asking is None and self._sent_id is None:
            early_s = max(left_s - self._life_s / 2, 0.0)
            self.due_at = now + early_s + self._random.uniform(0, (left_s - early_s) / 4)

    def is_due(self, now: float) -> bool:
        """Tell whether `take` has something to do."""
        if self._asking is not None:
            return self._asking.done()
        return self.due_at is not None and now >= self.due_at

    def take(self, now: float) -> str | RefreshFailed | None:
        """Start asking for a token, or return the one that came; then send it and tell the id with `sent`.

        Raises:
            Exception: whatever the caller's token function raised that is no `TokenError`.
        """
        if self._asking is None:
            self.due_at = None
            self._asking = asyncio.get_running_loop().create_task(take_token(self._source))
            self._asking.add_done_callback(lambda _: self._wake())
            return None
        try:
            return self._asking.result()  # kept until it is `sent`: the sending may be cancelled
        except TokenError as error:
            self._asking = None
            retry_in_s = self._again(now, error.retry_after_s) if error.retryable else None
            return RefreshFailed(
                code=error.code, reason=error.message, retry_in_s=retry_in_s, status=error.status
            )
        except BaseException:
            self._asking = None
            raise

    def sent(self, id: int) -> None:
        """The token went out with this id."""
        self._asking = None
        self._sent_id = id

    def refreshed(self, frame: Refreshed, server_ms: int | None, now: float) -> None:
        """The connection has a new end."""
        self._sent_id = self.due_at = None
        self._life_s = (frame.expires_at - (server_ms or self._server_ms)) / 1000
        self._ends_at = now + self._life_s

    def refused(self, problem: Problem, now: float) -> RefreshFailed | None:
        """Return what the caller should hear if `problem` answers our token."""
        if problem.id is None or problem.id != self._sent_id:
            return None
        self._sent_id = None
        told_s = None if problem.retry_after_ms is None else problem.retry_after_ms / 1000
        may_work = problem.retryable or problem.code == _TRY_AGAIN
        retry_in_s = self._again(now, told_s) if may_work else None
        return RefreshFailed(code=problem.code, reason=problem.message, retry_in_s=retry_in_s)

    def close(self) -> None:
        """End the request for a token, if one is under way: the connection is gone."""
        task, self._asking, self.due_at = self._asking, None, None
        if task is not None:
            # whatever it still ends with, nobody is left to hear of it; asyncio would log it as never retrieved
            task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
            task.cancel()

    def _again(self, now: float, told_s: float | None) -> float | None:
        """Return the wait before another attempt, or None if the connection ends before."""
        wait_s = max(RETRY_S, (self._ends_at - now) / 4, told_s or 0.0)
        if now + wait_s >= self._ends_at:
            return None
        self.due_at = now + wait_s
        return wait_s
