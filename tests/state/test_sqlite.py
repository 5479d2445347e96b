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
    """A wall clock that stands still until it is set, and how much time has really gone by."""

    def __init__(self) -> None:
        self.now = NOW
        self.passed = 0.0

    def __call__(self) -> float:
        """Return Unix seconds."""
        return self.now

    def steady(self) -> float:
        """Return the seconds of a clock that nobody can set."""
        return self.passed

    def wait(self, seconds: float) -> None:
        """Let time go by on both clocks."""
        self.now += seconds
        self.passed += seconds


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
    state = SqliteState.open(path, clock=clock, steady=clock.steady)
    yield state
    await state.aclose()


def rows(path: Path, table: str) -> int:
    """Count the rows of a table, from outside."""
    database = sqlite3.connect(path)
    (count,) = database.execute(f"SELECT count(*) FROM {table}").fetchone()
    database.close()
    return int(count)


def has_claim(path: Path, jti: str) -> bool:
    """Tell whether a token is noted as used, from outside."""
    database = sqlite3.connect(path)
    found = database.execute("SELECT 1 FROM claims WHERE jti = ?", (jti,)).fetchone()
    database.close()
    return found is not None


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
    state = SqliteState.open(path, clock=clock, steady=clock.steady)
    await state.revoke("session-1", at=NOW, until=NOW + 100)
    await state.aclose()
    again = SqliteState.open(path, clock=clock, steady=clock.steady)
    assert again.revoked_at("session-1") == NOW
    assert again.revoked_at("session-2") is None
    await again.aclose()


async def test_a_later_revocation_can_not_shorten_an_earlier_one(path: Path, clock: Clock) -> None:
    """A clock that was set back lets no session in again, neither now nor after a restart."""
    state = SqliteState.open(path, clock=clock, steady=clock.steady)
    await state.revoke("session-1", at=NOW, until=NOW + 100)
    await state.revoke("session-1", at=NOW - 50, until=NOW + 10)
    assert state.revoked_at("session-1") == NOW
    await state.aclose()
    again = SqliteState.open(path, clock=clock, steady=clock.steady)
    assert again.revoked_at("session-1") == NOW
    await again.aclose()


# --- what it forgets ------------------------------------------------------------------------------


async def test_a_crowd_is_claimed_in_an_sqlite_of_long_ago(state: SqliteState) -> None:
    """One statement takes 999 values there, and a crowd at once has more."""
    state._database.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, 999)
    answers = await asyncio.gather(
        *(state.claim(f"jti-{number}", expires_at=NOW + 30) for number in range(1200))
    )
    assert answers == [True] * 1200


async def let_pass(state: SqliteState, clock: Clock, seconds: float) -> None:
    """Let time go by, with a claim each minute."""
    for _ in range(round(seconds / 60)):
        clock.wait(60)
        await state.claim(f"at {clock.passed}", expires_at=clock.now + 30)


async def test_expired_entries_are_purged(state: SqliteState, path: Path, clock: Clock) -> None:
    """The file and the memory are bounded: entries are removed when they have no effect any more."""
    await state.claim("old", expires_at=NOW + 30)
    await state.revoke("old session", at=NOW, until=NOW + 100)
    await state.revoke("long session", at=NOW, until=NOW + 10_000)
    await let_pass(state, clock, 600)
    assert not has_claim(path, "old")
    assert rows(path, "claims") < 6
    assert (rows(path, "revocations"), rows(path, "revocation_lives"), len(state._revoked)) == (1, 1, 1)
    assert state.revoked_at("long session") == NOW
    await let_pass(state, clock, 11_000)
    assert (rows(path, "revocations"), rows(path, "revocation_lives"), len(state._revoked)) == (0, 0, 0)


async def test_a_claim_outlives_its_token(state: SqliteState, clock: Clock) -> None:
    """Past its end a token is still remembered for a while, so that no leeway makes it good again."""
    await state.claim("jti", expires_at=NOW + 30)
    clock.wait(140)
    await state.claim("another", expires_at=clock.now + 30)
    assert await state.claim("jti", expires_at=NOW + 30) is False


@pytest.mark.parametrize("jump_s", [-86_400, -3600, 3600, 8 * 86_400, 400 * 86_400])
@pytest.mark.parametrize("for_s", [0, 60, 120, 3600])
async def test_a_clock_that_jumps_and_comes_back_frees_nothing(
    state: SqliteState, path: Path, clock: Clock, jump_s: int, for_s: int
) -> None:
    """No used token and no revocation is forgotten early, however far and for however long the clock was wrong."""
    await let_pass(state, clock, 600)
    end = clock.now + 30
    await state.claim("jti", expires_at=end)
    await state.revoke("session-1", at=clock.now, until=clock.now + 7 * 86_400)
    clock.now += jump_s
    await state.claim("others", expires_at=clock.now + 30)
    await let_pass(state, clock, for_s)
    clock.now -= jump_s
    await state.claim("more", expires_at=clock.now + 30)
    if clock.now < end + 2:
        assert await state.claim("jti", expires_at=end) is False
    assert state.revoked_at("session-1") is not None
    await state.aclose()
    again = SqliteState.open(path, clock=clock, steady=clock.steady)
    clock.now += jump_s
    await again.claim("after a restart", expires_at=clock.now + 30)
    clock.now -= jump_s
    if clock.now < end + 2:
        assert await again.claim("jti", expires_at=end) is False
    assert again.revoked_at("session-1") is not None
    await again.aclose()


async def test_a_clock_that_stays_wrong_fills_no_file(state: SqliteState, path: Path, clock: Clock) -> None:
    """A machine that starts in 1970 and learns the time later still forgets what is over."""
    clock.now = 1000.0
    await let_pass(state, clock, 300)
    await state.revoke("session-1", at=clock.now, until=clock.now + 100)
    clock.now = NOW
    await let_pass(state, clock, 600)
    assert rows(path, "claims") < 6
    assert state.revoked_at("session-1") is None


async def test_a_file_of_an_earlier_release_is_taken_over(path: Path, clock: Clock) -> None:
    """Its revocations count, and last as long as they would have."""
    database = sqlite3.connect(path)
    database.executescript(
        "CREATE TABLE claims (jti TEXT PRIMARY KEY, expires_at REAL NOT NULL) WITHOUT ROWID;"
        "CREATE TABLE revocations (target TEXT PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL) WITHOUT ROWID;"
        f"INSERT INTO claims VALUES ('jti', {NOW + 150});"
        f"INSERT INTO revocations VALUES ('session-1', {NOW}, {NOW + 10_000});"
    )
    database.close()
    state = SqliteState.open(path, clock=clock, steady=clock.steady)
    assert await state.claim("jti", expires_at=NOW + 30) is False
    await let_pass(state, clock, 9000)
    assert state.revoked_at("session-1") == NOW
    await let_pass(state, clock, 2000)
    assert state.revoked_at("session-1") is None
    await state.aclose()


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
    assert state.revoked_at("session-1") is None
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
    state = SqliteState.open(path, clock=clock, steady=clock.steady)
    await asyncio.gather(*(state.claim(f"jti-{number}", expires_at=NOW + 30) for number in range(2000)))
    await state.aclose()
    break_claims(path)
    again = SqliteState.open(path, clock=clock, steady=clock.steady)
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
