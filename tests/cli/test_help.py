"""What the command line says to somebody who looks only at the screen."""

from collections.abc import Iterator
from typing import Any

import pytest
from rich.markup import render
from typer.main import get_command

from relay.cli import app
from relay.cli.lazy import LazyCommand
from tests.support.command_line import RelayCommand, relay

__all__ = ["relay"]


def texts(command: Any, name: str = "relay") -> Iterator[tuple[str, str]]:
    """Yield each help text of a command, its options and its commands, with the command's name."""
    if isinstance(command, LazyCommand):
        command = command.load()
    yield name, command.help or ""
    for parameter in command.params:
        yield name, getattr(parameter, "help", None) or ""
    for inner, found in getattr(command, "commands", {}).items():
        yield from texts(found, f"{name} {inner}")


def test_no_help_text_is_eaten_by_markup() -> None:
    """[grants] in a help text is shown, and not taken for a colour. Write it with a backslash."""
    found = list(texts(get_command(app)))
    assert len(found) > 100
    assert [(name, text) for name, text in found if render(text).plain != text.replace("\\[", "[")] == []


@pytest.mark.parametrize("arguments", [[], ["X"], ["prices.BTC-USD"]])
def test_listen_says_what_it_needs(relay: RelayCommand, arguments: list[str]) -> None:
    """Without a URL of an endpoint, or without channels, one line has both, as an example."""
    done = relay("listen", *arguments)
    assert done.code == 2
    assert done.err == (
        "Give the URL of an endpoint, and then channels: relay listen ws://127.0.0.1:8001/ws/prices 'prices.>'\n"
    )
