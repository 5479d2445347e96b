"""How tokens get into these commands, and how what they say gets out to a terminal.

Every text of a token is shown as JSON, with all that can't be printed escaped: an ANSI sequence in `sub` could
rewrite the verdict.
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
"""Characters of a value that are shown; a channel list of 32 may have more, and its start is enough."""

TokenArgument = Annotated[str, typer.Argument(help="The token, or - to read it from standard input.")]


def read_token(argument: str) -> str:
    """Return the token that the argument is or, for "-", that standard input has.

    Raises:
        ConfigurationError: if standard input is closed.
    """
    if argument != "-":
        return argument
    if sys.stdin is None:
        raise ConfigurationError("Standard input is closed: pipe the token into the command.")
    # enough to know a token that is too long, with its line end, from one that is not
    data = sys.stdin.buffer.read(MAX_TOKEN_BYTES + 3)
    return data.decode("utf-8", "replace").rstrip("\r\n")


@contextlib.contextmanager
def quiet_log() -> Iterator[None]:
    """Keep what the relay's parts log off the terminal: the command says it in its own sentence, and ends."""
    import structlog

    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    try:
        yield
    finally:
        structlog.configure(**before)


def shown(value: object, *, quoted: bool = True) -> str:
    """Return a value from a token as text that a terminal shows and never obeys."""
    try:
        text = value if isinstance(value, str) and not quoted else json.dumps(value, ensure_ascii=False)
    except RecursionError:
        return "(nested too deeply to show)"
    if len(text) > MAX_SHOWN_CHARS:
        text = text[: MAX_SHOWN_CHARS - 1] + "…"
    return "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in text)


def in_words(refusal: Refusal) -> str:
    """Return why a token is refused: what the reason means, and what about this token."""
    return shown(" ".join(filter(None, (EXPLANATIONS[refusal.reason], refusal.detail))), quoted=False)


def refusals_as_json(refusals: Iterable[Refusal]) -> list[dict[str, str]]:
    """Return the refusals for a program."""
    return [{"reason": refusal.reason.value, "detail": in_words(refusal)} for refusal in refusals]


def print_verdict(verdict: str, refusals: Sequence[Refusal], unchecked: Sequence[str]) -> None:
    """Print a verdict, why, and what it does not cover; in colours on a terminal."""
    lines = [(verdict, "bold red" if refusals else "bold green")]
    lines += [(f"- {refusal.reason.value}: {in_words(refusal)}", "red") for refusal in refusals]
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
