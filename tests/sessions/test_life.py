"""The life of sessions and of their revocations: a copied cookie never works again after the log-out."""

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relay.sessions.base import Session
from relay.sessions.life import keep_s, kept_until, outlives
from tests.support.logs import lines_with
from tests.support.relay_process import Relay, make_relay

NOW = 1_795_319_000.0
LEEWAY_S = 60
DAY = 86_400


@contextlib.contextmanager
def living(folder: Path, *lines: str) -> Iterator[Relay]:
    """Run a relay with these lines in its session's section."""
    made = make_relay(folder, bff='backend = "http://127.0.0.1:9"')
    file = made.folder / "relay.toml"
    file.write_text(file.read_text().replace("[session]\n", "\n".join(["[session]", *lines, ""])))
    made.start()
    try:
        yield made
    finally:
        made.stop()


def revoked_until(relay: Relay) -> float:
    """Return until when the newest revocation in the state file is kept."""
    with contextlib.closing(sqlite3.connect(relay.folder / "relay-state.db")) as database:
        found: tuple[float] = database.execute("SELECT max(until) FROM revocations").fetchone()
    return found[0]


async def test_f1_a_session_that_outlives_max_s_is_refused_and_its_log_out_is_kept(tmp_path: Path) -> None:
    """With session.max_s = 60, a token of 600 seconds is refused, and a log-out with it is kept until its end."""
    with living(tmp_path, "max_s = 60", "leeway_s = 0") as relay:
        now = int(time.time())
        session = relay.session(iat=now, exp=now + 600)
        answer = await relay.ask(session)
        assert (answer.status_code, answer.headers.get("set-cookie")) == (401, None)
        [line] = lines_with(relay, "refused")
        assert (line["reason"], line["setting"]) == ("session_invalid", "session.max_s")
        assert "Its token lives 600 s, and session.max_s is 60." in line["why"]
        assert (await relay.logout(session)).status_code == 204
        assert revoked_until(relay) >= now + 600
        short = relay.session(iat=now, exp=now + 60)
        assert (await relay.ask(short)).status_code == 200
        assert (await relay.logout(short)).status_code == 204
        assert revoked_until(relay) >= now + 600


async def test_f1_a_log_in_that_is_older_than_max_s_is_refused(tmp_path: Path) -> None:
    """A renewed token does not make its log-in younger, if the backend tells the log-in's time."""
    with living(tmp_path, "max_s = 3600", 'claims = { issued_at = "auth_time" }') as relay:
        now = int(time.time())
        assert (await relay.ask(relay.session(auth_time=now - 3000))).status_code == 200
        answer = await relay.ask(relay.session(auth_time=now - 4000))
        assert (answer.status_code, answer.headers.get("set-cookie")) == (401, None)
        assert lines_with(relay, "refused")[0]["setting"] == "session.max_s"


@pytest.mark.parametrize("max_s", [60, 7 * DAY, 30 * DAY])
@pytest.mark.parametrize("iat", [None, -700 * DAY, -DAY, 0, LEEWAY_S])
@pytest.mark.parametrize("log_in", [None, -40 * DAY, -60, 0])
@pytest.mark.parametrize("life", [10, 60, 600, DAY, 7 * DAY, 30 * DAY, 90 * DAY])
def test_f1_no_session_outlives_its_revocation(
    max_s: int, iat: int | None, log_in: int | None, life: int
) -> None:
    """Whichever token of a session is shown at the log-out, no other one of it is accepted when it is forgotten."""
    issued = None if iat is None else NOW + iat
    token = Session(
        subject="u",
        roles=(),
        ref="r",
        own_id=True,
        issued_at=0.0 if log_in is None else NOW + log_in,
        token_issued_at=issued,
        token_expires_at=(NOW if issued is None else issued) + life,
    )
    forgotten = NOW + keep_s(max_s=max_s, leeway_s=LEEWAY_S)
    if iat is None:  # its life is not known, so the log-out is kept until the end of the token that was shown
        forgotten = max(forgotten, kept_until(token, leeway_s=LEEWAY_S))
    assert token.token_expires_at is not None
    accepted = token.token_expires_at + LEEWAY_S > forgotten and not outlives(
        token, now=forgotten, max_s=max_s, leeway_s=LEEWAY_S
    )
    assert not accepted
