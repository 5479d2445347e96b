"""What the command line says to somebody who looks only at the screen."""

import re
from collections.abc import Iterator
from pathlib import Path
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


MISTAKES: dict[str, tuple[str, ...]] = {
    # what is missing is explained
    "audit who": ("Missing argument 'ENDPOINT'", "The endpoint's name in the settings."),
    "audit why": ("there is no such audit log", "--file"),
    "bench replay": ("Missing argument 'FILE'", "Recordings, plain or gzip."),
    "keys new": ("Missing option '--dir'", "Folder for the key's files, created if missing."),
    "keys publisher": ("Missing argument 'NAME'", "The publisher's name, such as pricing"),
    "replay": ("Missing argument 'FILE'", "Recordings, plain or gzip."),
    "token inspect": ("Missing argument 'TOKEN'", "The token, or - to read it from standard input."),
    "token mint": ("Missing option '--user'", "The user that the token is for."),
    # what is wrong is said in the command's words
    "bench fanout --subscribers 0": ("'--subscribers'", "it must be greater than or equal to 1"),
    "demo --port 99999": ("'--port'", "it must be less than or equal to 65535"),
    "keys operator ops --may rule": ("'--may'", "'rule' is not one of 'read', 'revoke', 'reset'"),
    # what is not there can be named
    "audit tail": ("audit.jsonl: there is no such audit log", "--config", "--file"),
    "audit export": ("audit.jsonl: there is no such audit log", "--config", "--file"),
    "audit verify": ("There are no settings", "--config", "name them as arguments"),
    "config check": ("There are no settings", "--config", "README.md"),
    "keys list": ("--dir", "--config"),
    "listen ws://127.0.0.1:1/ws prices.A": ("--token", "relay token mint --user NAME", "RELAY_SESSION_TOKEN"),
    "publish prices.A 1": ("--key", "RELAY_PUBLISH_KEY", "relay keys publisher NAME"),
    "publishers": ("--key", "RELAY_OPERATOR_KEY", "relay keys operator NAME"),
    "serve": ("There are no settings", "--config", "README.md"),
    "token verify x": ("There are no settings", "--config", "--keys-dir", "--jwks"),
}
"""What somebody types in an empty folder -> what the answer must have."""


@pytest.mark.parametrize("line", MISTAKES)
def test_a_mistake_is_answered_with_what_helps(
    line: str, relay: RelayCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In an empty folder, each command names the argument, option or command that helps, and prints no answer."""
    monkeypatch.chdir(tmp_path)
    done = relay(*line.split())
    shown = " ".join(re.sub(r"[│╭╮╰╯─]", " ", done.err).split())
    assert done.code == 2
    assert done.out == ""
    for text in MISTAKES[line]:
        assert text in shown
    assert "Value error" not in shown
    assert "Input should" not in shown
