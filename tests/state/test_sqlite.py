"""The SQLite state: what its file survives, and what it says when it can't answer."""

import asyncio
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.state.sqlite import SqliteState

ROOT = Path(__file__).parents[2]
NOW = 1_795_319_000.0

CLAIMER = """
import asyncio, sys, time
from pathlib import Path
from relay.state.sqlite import SqliteState

async def main():
    state = SqliteState.open(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    for number in range(int(sys.argv[2])):
        if await state.claim(f"jti-{number}", expires_at=time.time() + 30):
            print(number, flush=True)
    await state.aclose()

asyncio.run(main())
"""


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return Unix seconds."""
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the state is."""
    return tmp_path / "state.db"


@pytest.fixture
def clock() -> Clock:
    """The state's clock."""
    return Clock()


@pytest.fixture
async def state(path: Path, clock: Clock) -> AsyncIterator[SqliteState]:
    """A state in `path`."""
    state = SqliteState.open(path, clock=clock)
    yield state
    await state.aclose()


def rows(path: Path, table: str) -> int:
    """Count the rows of a table, from outside."""
    database = sqlite3.connect(path)
    (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    database.close()
    return int(count)


def break_claims(path: Path) -> None:
    """Overwrite the page that the claims' table begins with."""
    database = sqlite3.connect(path)
    (page,) = database.execute("SELECT rootpage FROM sqlite_master WHERE name = 'claims'").fetchone()
    (page_size,) = database.execute("PRAGMA page_size").fetchone()
    database.close()
    with path.open("r+b") as file:
        file.seek((page - 1) * page_size)
        file.write(b"\xff" * page_size)


def start_claimer(path: Path, count: int) -> subprocess.Popen[bytes]:
    """Start a process that claims jti-0 to jti-`count` once it is told to, and prints those that it got."""
    return subprocess.Popen(
        [sys.executable, "-c", CLAIMER, str(path), str(count)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )


def wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    """Return once the process has the file open."""
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"


# --- what it survives -----------------------------------------------------------------------------


async def test_claims_survive_kill_9(path: Path) -> None:
    """Every token whose claim was answered before the kill is still used up afterwards."""
    with start_claimer(path, 1_000_000) as process:
        wait_until_ready(process)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
        claimed = [int(process.stdout.readline()) for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        claimed += [int(line) for line in process.stdout if line.endswith(b"\n")]
    assert process.returncode == -signal.SIGKILL
    state = SqliteState.open(path)
    again = await asyncio.gather(
        *(state.claim(f"jti-{number}", expires_at=time.time() + 30) for number in claimed)
    )
    fresh = await state.claim("never claimed", expires_at=time.time() + 30)
    await state.aclose()
    assert len(claimed) >= 100
    assert (any(again), fresh) == (False, True)


def test_two_processes_share_one_file(path: Path) -> None:
    """Of two processes that claim the same tokens at once, each token goes to exactly one."""
    with start_claimer(path, 300) as one, start_claimer(path, 300) as two:
        for process in (one, two):
            wait_until_ready(process)
        for process in (one, two):
            assert process.stdin is not None
            process.stdin.write(b"go\n")
            process.stdin.flush()
        got = [int(line) for process in (one, two) for line in process.communicate()[0].splitlines()]
    assert (one.returncode, two.returncode) == (0, 0)
    assert sorted(got) == list(range(300))


async def test_revocations_survive_a_restart(path: Path, clock: Clock) -> None:
    """A revoked session stays revoked, and other sessions are not revoked."""
    state = SqliteState.open(path, clock=clock)
    await state.revoke("session-1", at=NOW, until=NOW + 100)
    await state.aclose()
    again = SqliteState.open(path, clock=clock)
    assert again.revoked_at("session-1", now=NOW + 50) == NOW
    assert again.revoked_at("session-2", now=NOW + 50) is None
    await again.aclose()


async def test_a_later_revocation_can_not_shorten_an_earlier_one(path: Path, clock: Clock) -> None:
    """A clock that was set back lets no session in again, neither now nor after a restart."""
    state = SqliteState.open(path, clock=clock)
    await state.revoke("session-1", at=NOW, until=NOW + 100)
    await state.revoke("session-1", at=NOW - 50, until=NOW + 10)
    assert state.revoked_at("session-1", now=NOW + 50) == NOW
    await state.aclose()
    again = SqliteState.open(path, clock=clock)
    assert again.revoked_at("session-1", now=NOW + 50) == NOW
    await again.aclose()


# --- what it forgets ------------------------------------------------------------------------------


async def test_a_crowd_is_claimed_in_an_sqlite_of_long_ago(state: SqliteState) -> None:
    """One statement takes 999 values there, and a crowd at once has more."""
    state._database.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    answers = await asyncio.gather(
        *(state.claim(f"jti-{number}", expires_at=NOW + 30) for number in range(1200))
    )
    assert answers == [True] * 1200


async def test_expired_entries_are_purged(state: SqliteState, path: Path, clock: Clock) -> None:
    """The file and the memory are bounded: entries are removed when they have no effect any more."""
    await state.claim("old", expires_at=NOW + 30)
    await state.revoke("old session", at=NOW, until=NOW + 100)
    await state.revoke("long session", at=NOW, until=NOW + 10_000)
    clock.now = NOW + 300
    await state.claim("new", expires_at=clock.now + 30)
    assert (rows(path, "claims"), rows(path, "revocations"), len(state._revoked)) == (1, 1, 1)
    assert await state.claim("new", expires_at=clock.now + 30) is False
    assert state.revoked_at("long session", now=clock.now) == NOW


async def test_a_claim_outlives_its_token(state: SqliteState, clock: Clock) -> None:
    """Past its end a token is still remembered for a while, so that no leeway makes it good again."""
    await state.claim("jti", expires_at=NOW + 30)
    clock.now = NOW + 140
    await state.claim("another", expires_at=clock.now + 30)
    assert await state.claim("jti", expires_at=NOW + 30) is False


# --- what it says when it can't answer ------------------------------------------------------------


async def test_a_locked_file_is_no_answer(state: SqliteState, path: Path) -> None:
    """While another program locks the file, a claim raises an error. Afterwards it works."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(UnavailableError, match="did not answer") as refused:
        await state.claim("jti", expires_at=NOW + 30)
    assert refused.value.reason is Reason.STATE_UNAVAILABLE
    with pytest.raises(UnavailableError):
        await state.revoke("session-1", at=NOW, until=NOW + 100)
    assert state.revoked_at("session-1", now=NOW) is None
    other.execute("ROLLBACK")
    other.close()
    assert await state.claim("jti", expires_at=NOW + 30) is True


def test_a_locked_file_is_refused_at_start(path: Path) -> None:
    """A file that another program holds can't be opened, and one sentence says so."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(ConfigurationError, match=r"engine\.state_path: .*locked") as refused:
        SqliteState.open(path)
    assert "\n" not in str(refused.value)
    other.close()


@pytest.mark.parametrize(
    "content", [b"hello\n" * 1000, b"\x00" * 4096, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    """A wrong path in the settings must not spoil somebody's file."""
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=r"engine\.state_path: .*can't be used as the state file"):
        SqliteState.open(path)
    assert path.read_bytes() == content


def test_a_database_of_something_else_is_refused(path: Path) -> None:
    """Tables of the same name with other columns are somebody else's."""
    database = sqlite3.connect(path)
    database.execute("CREATE TABLE revocations (id INTEGER)")
    database.commit()
    database.close()
    with pytest.raises(ConfigurationError, match="no such column"):
        SqliteState.open(path)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """The sentence has the setting, the path and what to do."""
    with pytest.raises(
        ConfigurationError, match=r"engine\.state_path: .*/no/state\.db .*Set it to a file in a folder"
    ):
        SqliteState.open(tmp_path / "no" / "state.db")


def test_a_file_that_may_only_be_read_is_refused_at_start(path: Path) -> None:
    """Not at the first claim, when nobody looks at the terminal any more."""
    asyncio.run(SqliteState.open(path).aclose())
    code = (
        "import os, sys; from pathlib import Path; from relay.state.sqlite import SqliteState\n"
        "from relay.core.errors import ConfigurationError\n"
        "os.chmod(sys.argv[1], 0o444); os.chdir(os.path.dirname(sys.argv[1]))\n"
        "os.chmod('.', 0o555)\n"
        "if os.geteuid() == 0: os.setgroups([]); os.seteuid(65534)  # root may write anywhere\n"
        "try: SqliteState.open(Path('state.db'))\n"
        "except ConfigurationError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert "can't be used as the state file" in done.stdout


async def test_a_file_that_breaks_while_it_is_used_is_no_answer(path: Path, clock: Clock) -> None:
    """Pages that no longer make sense raise the documented exception: whether the token is used up is unknown."""
    state = SqliteState.open(path, clock=clock)
    await asyncio.gather(*(state.claim(f"jti-{number}", expires_at=NOW + 30) for number in range(2000)))
    await state.aclose()
    break_claims(path)
    again = SqliteState.open(path, clock=clock)
    with pytest.raises(UnavailableError, match="malformed"):
        await again.claim("jti-1", expires_at=NOW + 30)
    await again.aclose()


async def test_after_the_end_there_is_no_answer(path: Path) -> None:
    """A claim after `aclose` is refused; closing twice is no error."""
    state = SqliteState.open(path)
    await state.aclose()
    await state.aclose()
    with pytest.raises(UnavailableError):
        await state.claim("jti", expires_at=NOW)
