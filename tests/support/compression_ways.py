"""The two ways in which the tests of the clients run: with connections that ask for compression, and with plain ones.

A test takes part by the fixture `compression` of tests/conftest.py: the browser's fixtures bring it along, and modules
of the Python client name it. With compression each client asks for it, each scripted server negotiates it and sends
values in batches, and a connection without it fails the test.
"""

from collections.abc import Iterable, Iterator
from inspect import iscoroutinefunction
from itertools import groupby
from typing import Any

import pytest

BATCHED = ("snapshot", "update", "status")
"""Types of the frames that a relay puts into a batch. It sends all others as they are."""

IDS = {False: "plain", True: "compressed"}


class Way:
    """The way of the running test. Servers and clients of tests/support read it when they start."""

    compressed = False


way = Way()


def parametrize(metafunc: pytest.Metafunc) -> None:
    """Let a test run in both ways, or once: if it has the marker `plain_only(reason)`, or opens no connection."""
    marker = metafunc.definition.get_closest_marker("plain_only")
    if marker is not None and not (marker.args and marker.args[0]):
        raise pytest.UsageError(f"{metafunc.definition.nodeid}: plain_only needs a reason.")
    is_alone = marker is not None or not iscoroutinefunction(metafunc.function)
    metafunc.parametrize("compression", [False] if is_alone else [False, True], ids=IDS.get, indirect=True)


def messages(frames: Iterable[Any], *, batched: bool) -> Iterator[Any]:
    """Return what a relay sends for `frames`: each by itself, or those that may be in a batch as one."""
    if not batched:
        yield from frames
        return
    for is_data, group in groupby(
        frames, lambda frame: not isinstance(frame, dict) or frame["type"] in BATCHED
    ):
        if is_data:
            yield {"type": "batch", "frames": list(group)}
        else:
            yield from group
