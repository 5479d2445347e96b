"""What the doctor finds out about this machine and others, with real files, sockets and clocks."""

import contextlib
import resource
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from unittest.mock import ANY

import pytest

from relay.doctor import gather, probes
from relay.doctor.probes import ahead_by, filesystem_of, read_engine
from relay.settings.load import load
from tests.support.backends import ScriptedBackend, http_answer
from tests.support.doctor_deployment import change
from tests.support.engines import Engines
from tests.support.ports import free_ports


@contextlib.asynccontextmanager
async def backend(folder: Path, answer: bytes | Callable[[], bytes]) -> AsyncIterator[None]:
    """Run a backend that gives this answer, and let the settings name it as the one for log-ins alone."""
    scripted = ScriptedBackend()
    async with scripted.answering(answer):
        change(folder, ('backend = "http://127.0.0.1:9000"', f'backend = "{scripted.origin}"'))
        change(folder, ('me = "http://127.0.0.1:9000/auth/me"', f'me = "{scripted.origin}/auth/me"'))
        yield


@pytest.mark.parametrize(("ours", "found"), [(0, (0, 0)), (3600, (3570, 3600)), (-3600, (-3600, -3570))])
async def test_a_backends_clock_is_read_from_the_date_of_any_answer(
    folder: Path, ours: int, found: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The date of any answer will do, a refusal's as well. It may take a while, which makes the clock less certain."""
    monkeypatch.setattr(probes, "ANSWER_WITHIN_S", 30.0)

    def answer() -> bytes:
        return http_answer(401, {}, f"Date: {formatdate(time.time() - ours, usegmt=True)}")

    async with backend(folder, answer):
        deployment = await gather(load(folder / "relay.toml"), None, ask=True)
    assert [clock.setting for clock in deployment.clocks] == ["session.upstream.me", "bff.backend"]
    for clock in deployment.clocks:
        assert clock.host == "127.0.0.1"
        assert clock.ahead_s is not None
        assert found[0] <= clock.ahead_s <= found[1]


@pytest.mark.parametrize(
    "answer",
    [http_answer(200, {}), http_answer(200, {}, "Date: yesterday"), b"garbage\r\n\r\n", b""],
)
async def test_a_backend_that_does_not_say(folder: Path, answer: bytes) -> None:
    """No date, no HTTP, no answer: unknown."""
    async with backend(folder, answer):
        deployment = await gather(load(folder / "relay.toml"), None, ask=True)
    assert [clock.ahead_s for clock in deployment.clocks] == [None, None]


async def test_nobody_is_asked_offline(folder: Path) -> None:
    """Where no other server may be asked, none is."""
    assert (await gather(load(folder / "relay.toml"), None, ask=False)).clocks == []


@pytest.mark.parametrize(
    ("asked", "answered", "theirs", "ahead"),
    [
        (100.2, 100.3, 100, 0),
        (100.9, 101.1, 101, 0),
        (100.1, 100.2, 99, 0.1),
        (103.5, 103.6, 100, 2.5),
        (97.0, 97.5, 100, -2.5),
        (90.0, 110.0, 100, 0),
    ],
)
def test_whole_seconds_are_allowed_for(asked: float, answered: float, theirs: float, ahead: float) -> None:
    """A date stands for its whole second, and for any moment between question and answer."""
    assert ahead_by(asked, answered, theirs) == pytest.approx(ahead)


async def test_the_soft_limit_of_open_files_is_read(folder: Path) -> None:
    """The limit is the one that counts: the soft one."""
    deployment = await gather(load(folder / "relay.toml"), None, ask=False)
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert deployment.open_files == (min(hard, 1 << 20) if hard != resource.RLIM_INFINITY else 1 << 20)


@pytest.mark.skipif(not Path("/proc/self/mounts").exists(), reason="this system lists no mounts in /proc")
def test_this_machines_file_systems(tmp_path: Path) -> None:
    """The innermost mount counts, also for what is not there yet; links are followed."""
    assert filesystem_of(Path("/proc/self/none")) == "proc"
    (tmp_path / "link").symlink_to("/proc/self")
    assert filesystem_of(tmp_path / "link" / "x") == "proc"
    assert filesystem_of(tmp_path) not in ("", "proc")


async def test_an_engine_tells_of_itself(folder: Path, engines: Engines) -> None:
    """Its clock, its bound, and whether it keeps anything; one that is away is a fault in one sentence."""
    change(folder, ("[listen]", f'[engine]\nurl = "{engines("redis").url}"\n\n[listen]'))
    told = await read_engine(load(folder / "relay.toml"))
    assert told is not None
    assert (told.fault, told.memory > 64 << 20, told.is_persistent, told.replicas) == ("", True, False, 0)
    assert abs(told.ahead_s) < 1
    change(folder, (engines("redis").url, engines.cluster.url))
    assert await read_engine(load(folder / "relay.toml")) == replace(told, ahead_s=ANY, memory=ANY)
    change(folder, (engines.cluster.url, f"redis://127.0.0.1:{free_ports(1)[0]}"))
    away = await read_engine(load(folder / "relay.toml"))
    assert away is not None
    assert "does not answer" in away.fault
