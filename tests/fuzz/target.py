"""What can be fuzzed: a function of bytes that lets nothing out, and inputs to begin from."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser. `feed` takes any bytes and raises only where the parser broke its promise.

    `seeds` are good inputs, from which the fuzzers pass the first check, and inputs that were found before.
    """

    name: str
    feed: Callable[[bytes], None]
    seeds: Sequence[bytes]


def text_of(data: bytes) -> str:
    """Return any text: what is no UTF-8 becomes lone surrogates, which are the worst that a text can hold."""
    return data.decode("utf-8", "surrogateescape")


def latin(data: bytes) -> str:
    """Return bytes as an HTTP library hands them on."""
    return data.decode("latin-1")


def at_once(coroutine: Coroutine[Any, Any, Result]) -> Result:
    """Return what a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as done:
        result: Result = done.value
        return result
    coroutine.close()
    raise AssertionError("it waited")
