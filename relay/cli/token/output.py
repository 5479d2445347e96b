"""How the commands read a token, and print its values and the verdict.

Texts of a token are printed as JSON, with unprintable characters escaped. Otherwise an ANSI sequence in `sub` could
overwrite the verdict on the terminal.
"""

import contextlib
import json
import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Final

import typer

from relay.core.errors import EXPLANATIONS, ConfigurationError, Refusal
from relay.core.tokens import MAX_TOKEN_BYTES

MAX_SHOWN_CHARS: Final = 400
"""Characters of a value that are shown. A list of 32 channels may have more."""

TokenArgument = Annotated[
    str, typer.Argument(metavar="TOKEN", help="The token, or - to read it from standard input.")
]


def read_token(argument: str) -> str:
    """Return the argument or, if it is "-", the token on standard input.

    Raises:
        ConfigurationError: if standard input is closed.
    """
    if argument != "-":
        return argument
    if sys.stdin is None:
        raise ConfigurationError("Standard input is closed: pipe the token into the command.")
    # with a line end, and one byte more, so that a longer token is noticed
    data = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 3)
    return data.decode("utf-8", "replace").rstrip("\r\n")


@contextlib.contextmanager
def quiet_log() -> Iterator[None]:
    """Suppress the log of the relay's parts, because the command reports errors in its own words."""
    import structlog

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def shown(value: object, *, quoted: bool = True) -> str:
    """Return a value of a token as printable text."""
    try:
        text = value if isinstance(value, str) and not quoted else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to show)"
    if len(text) > MAX_SHOWN_CHARS:
        text = text[: MAX_SHOWN_CHARS - 1] + "…"
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def explanation(refusal: Refusal) -> str:
    """Return why a token is refused: the meaning of the reason, and the detail of this token."""
    return shown(" ".join(filter(None, (EXPLANATIONS[refusal.reason], refusal.detail))), quoted=False)


def refusals_as_json(refusals: Iterable[Refusal]) -> list[dict[str, str]]:
    """Return the refusals for JSON output."""
    return [{"reason": refusal.reason.value, "detail": explanation(refusal)} for refusal in refusals]


def print_verdict(verdict: str, refusals: Sequence[Refusal], unchecked: Sequence[str]) -> None:
    """Print a verdict, its reasons, and the checks that were not made; in colours on a terminal."""
    lines = [(verdict, "bold red" if refusals else "bold green")]
    lines += [(f"- {refusal.reason.value}: {explanation(refusal)}", "red") for refusal in refusals]
    lines += [(f"Not checked: {sentence}", "yellow") for sentence in unchecked]
    if not sys.stdout.isatty():
        for line, _ in lines:
            typer.echo(line)
        return
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for line, style in lines:
        console.print(Text(line, style=style))
