"""The guarantees that every store of used tokens gives, and what is particular to each."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.core.tokens import USED_KEPT_S
from relay.verify import ConfigurationError, MemorySingleUse, Reason, SingleUse, UnavailableError
from relay.verify.sqlite import SqliteSingleUse

NOW = 1_795_319_000.0


class Clock:
    """Unix seconds that a test moves."""

    now = NOW
    passed = 0.0

    def __call__(self) -> float:
        return self.now

    def steady(self) -> float:
        """Return the seconds that have really gone by."""
        return self.passed

    def wait(self, seconds: float) -> None:
        """Let time go by on both clocks."""
        self.now += seconds
        self.passed += seconds


@pytest.fixture(params=["memory", "sqlite"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[SingleUse]:
    """One store after the other, empty."""
    if request.param == "memory":
        yield MemorySingleUse()
        return
    used = SqliteSingleUse.open(tmp_path / "used.db")
    yield used
    await used.aclose()


async def test_a_token_is_used_once(store: SingleUse) -> None:
    """The first claim gets it, every later one does not, and other tokens are not touched."""
    expires_at = 4_000_000_000.0
    assert await store.claim("jti-1", expires_at=expires_at) is True
    assert await store.claim("jti-1", expires_at=expires_at) is False
    assert await store.claim("jti-2", expires_at=expires_at) is True
    assert await store.claim("jti-1", expires_at=expires_at + 30) is False


async def test_of_a_hundred_claims_at_once_one_gets_it(store: SingleUse) -> None:
    """Of a call and its replay at the same moment, exactly one is accepted."""
    claims = (store.claim("jti", expires_at=4_000_000_000.0) for _ in range(100))
    assert sorted(await asyncio.gather(*claims)) == [False] * 99 + [True]


# --- in memory


async def test_used_tokens_are_forgotten_long_after_their_end() -> None:
    """A clock that is set back by a minute makes no used token new."""
    clock = Clock()
    store = MemorySingleUse(clock=clock, steady=clock.steady)
    assert await store.claim("jti", expires_at=NOW + 30)
    clock.wait(30 + USED_KEPT_S)
    assert await store.claim("other", expires_at=clock.now + 30)
    assert not await store.claim("jti", expires_at=NOW + 30)
    for _ in range(31):
        clock.wait(30)
        await store.claim(f"at {clock.now}", expires_at=clock.now + 30)
    assert await store.claim("jti", expires_at=NOW + 30)


@pytest.mark.parametrize("jump_s", [-3600, 3600, 8 * 86_400])
async def test_a_clock_that_jumps_frees_no_token(jump_s: int) -> None:
    """A token that was used stays used, though the clock was wrong for a moment in its life."""
    clock = Clock()
    store = MemorySingleUse(clock=clock, steady=clock.steady)
    for _ in range(300):
        clock.wait(1)
        await store.claim(f"at {clock.now}", expires_at=clock.now + 30)
    end = clock.now + 30
    assert await store.claim("jti", expires_at=end)
    clock.now += jump_s
    assert await store.claim("another", expires_at=clock.now + 30)
    clock.now -= jump_s
    assert await store.claim("jti", expires_at=end) is False


async def test_a_full_memory_refuses_and_forgets_nothing() -> None:
    """Beyond the bound nobody gets in, a used token stays used, and room comes back with time."""
    clock = Clock()
    store = MemorySingleUse(max_tokens=3, clock=clock, steady=clock.steady)
    for number in range(3):
        assert await store.claim(f"jti-{number}", expires_at=NOW + 30 + number)
    with pytest.raises(UnavailableError) as refused:
        await store.claim("one more", expires_at=NOW + 30)
    assert refused.value.reason is Reason.STATE_UNAVAILABLE
    assert await store.claim("jti-0", expires_at=NOW + 30) is False
    clock.wait(30.5)
    with pytest.raises(UnavailableError):
        await store.claim("one more", expires_at=clock.now + 30)
    clock.wait(30 + USED_KEPT_S)
    assert await store.claim("one more", expires_at=clock.now + 30)
    with pytest.raises(UnavailableError):
        await store.claim("and another", expires_at=clock.now + 30)


def test_no_room_at_all_is_a_mistake() -> None:
    """It would refuse every call."""
    with pytest.raises(ConfigurationError, match="max_tokens must be 1 or more"):
        MemorySingleUse(max_tokens=0)


# --- in a file


async def test_a_restart_forgets_no_token(tmp_path: Path) -> None:
    """What one life of the service took, the next one refuses."""
    for expected in (True, False, False):
        store = SqliteSingleUse.open(tmp_path / "used.db")
        assert await store.claim("jti", expires_at=4_000_000_000.0) is expected
        await store.aclose()


CLAIMING = """
import asyncio, sys
from pathlib import Path
from relay.verify.sqlite import SqliteSingleUse

async def main():
    store = SqliteSingleUse.open(Path(sys.argv[1]))
    print("ready", flush=True)
    sys.stdin.readline()
    won = [await store.claim(f"jti-{number}", expires_at=4e9) for number in range(200)]
    print(sum(won), flush=True)
    await store.aclose()

asyncio.run(main())
"""


def test_worker_processes_share_the_file(tmp_path: Path) -> None:
    """Four workers that get the same 200 tokens at once take 200 of them together."""
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", CLAIMING, str(tmp_path / "used.db")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for worker in workers:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    won = [int(worker.communicate(timeout=60)[0]) for worker in workers]
    assert sum(won) == 200, won


def test_a_file_that_can_t_be_used_is_one_sentence(tmp_path: Path) -> None:
    """It names the file, and no setting of the relay's."""
    for path in (tmp_path, tmp_path / "nowhere" / "used.db"):
        with pytest.raises(ConfigurationError) as refused:
            SqliteSingleUse.open(path)
        assert str(refused.value).startswith(str(path))
