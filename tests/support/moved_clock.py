"""The clocks of a relay process, which a test moves while the process runs.

If the monotonic clock stays right, it is as on a machine whose clock is set; if both move, as when the time has passed.
This needs a C compiler. Without one the tests are skipped, and with CI=true they fail.
"""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.operators import OPERATORS
from tests.support.relay_process import Relay, make_relay


class MovedClock:
    """A clock that is right until it is moved. `environment` has the variables of the process whose clock this is.

    `like` is another clock, whose library is used again.
    """

    def __init__(self, folder: Path, *, like: "MovedClock | None" = None) -> None:
        self._file = folder / "seconds"
        self.move(0)
        library = like.environment["LD_PRELOAD"] if like is not None else str(_library(folder))
        self.environment: dict[str, str] = {"LD_PRELOAD": library, "MOVED_CLOCK": str(self._file)}

    def move(self, seconds: int, *, steady: int = 0) -> None:
        """Set the clock to the right time and so many seconds, at once, and the monotonic clock `steady` further."""
        beside = self._file.with_suffix(".next")
        beside.write_text(f"{seconds} {steady}")
        beside.replace(self._file)


def _library(folder: Path) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        assert os.environ.get("CI") != "true", "there is no C compiler; tests/run installs gcc"
        pytest.skip("there is no C compiler")
    library = folder / "moved_clock.so"
    source = Path(__file__).with_suffix(".c")
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, source], check=True)
    return library


@contextlib.contextmanager
def relay_with_clock(folder: Path) -> Iterator[tuple[Relay, MovedClock]]:
    """Run a relay whose wall clock can be moved."""
    clock = MovedClock(folder)
    relay = make_relay(folder / "relay", bff='backend = "http://127.0.0.1:9"', extra=OPERATORS)
    relay.environment |= clock.environment
    relay.start()
    try:
        yield relay, clock
    finally:
        relay.stop()
