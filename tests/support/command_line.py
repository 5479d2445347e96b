"""The `relay` command in the test's own process: a fixture that runs it, and a check that parses arguments only."""

import io
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import typer
import typer.main

from relay.cli import app, main
from relay.cli.lazy import LazyCommand


def loaded(command: Any) -> Any:
    """Return a command of a group as it runs. A group imports its commands when they are needed."""
    return command.load() if isinstance(command, LazyCommand) else command


def commands(group: Any, path: str = "relay") -> Iterator[tuple[str, Any, Any]]:
    """Yield each command below `group`: its full name, the command as its group lists it, and as it runs."""
    for name, listed in group.commands.items():
        command = loaded(listed)
        yield f"{path} {name}", listed, command
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")


def refusal(arguments: list[str]) -> str | None:
    """Say why the `relay` command would refuse these arguments, or None if it takes them. Runs nothing."""
    command: Any = typer.main.get_command(app)
    context = typer.Context(command, info_name="relay")
    try:
        while hasattr(command, "commands"):
            if "--help" in arguments[:1]:
                return None
            context.allow_interspersed_args = False
            _, arguments, _ = command.make_parser(context).parse_args(args=list(arguments))
            if not arguments:
                return None if command.invoke_without_command else f"{context.info_name} needs a command"
            name, *arguments = arguments
            if name not in command.commands:
                return f"{context.info_name} has no command {name}"
            command = loaded(command.commands[name])
            context = typer.Context(command, info_name=name, parent=context)
        values, extra, _ = command.make_parser(context).parse_args(args=list(arguments))
    except typer.TyperException as error:
        return error.format_message()
    if extra:
        return f"unexpected: {' '.join(extra)}"
    missing = [param.name for param in command.params if param.required and not values.get(param.name)]
    return f"missing: {', '.join(missing)}" if missing and not values.get("help") else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str


RelayCommand = Callable[..., Outcome]


@pytest.fixture
def relay(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> RelayCommand:
    """Run `relay ARGUMENTS…` in this process, with `stdin` on standard input."""

    def run(*arguments: str, stdin: bytes = b"") -> Outcome:
        monkeypatch.setattr(sys, "argv", ["relay", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main()
        captured = capsys.readouterr()
        assert "Traceback" not in captured.out + captured.err
        code = ended.value.code
        return Outcome(code=code if isinstance(code, int) else 0, out=captured.out, err=captured.err)

    return run
