"""What a command imports before it runs, and what the lists of commands say without importing any."""

import json
import subprocess
import sys
from typing import Any

import pytest
from rich.markup import render
from typer.main import get_command

import relay
from relay.cli import app
from tests.support.command_line import commands

_PROGRAM = """
import json, os, sys
from relay.__main__ import main
end = os._exit  # of a question to the audit log
os._exit = sys.exit
try:
    main()
finally:
    print(json.dumps(sorted(sys.modules)), flush=True)
    end(0)
"""


def modules(*arguments: str) -> set[str]:
    """Return the names of the modules that a command has imported when it ends."""
    command = [sys.executable, "-c", _PROGRAM, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr in ("", "The log has no records.\n")
    return set(json.loads(done.stdout.splitlines()[-1]))


COMMANDS = list(commands(get_command(app)))


def test_help_imports_no_part_of_the_relay() -> None:
    """`relay --help` needs Typer, and none of the packages that serve, connect or sign."""
    found = modules("--help")
    heavy = {"uvicorn", "websockets", "cryptography", "jwt", "httpx", "starlette", "structlog", "anyio"}
    assert not found & heavy
    rooms = {name.split(".")[1] for name in found if name.startswith("relay.")}
    assert rooms == {"__main__", "cli", "core"}


def test_inspecting_a_token_imports_no_server() -> None:
    """`relay token inspect` reads a token without the settings and without a listener or client."""
    found = modules("token", "inspect", "a.b.c")
    assert not found & {"uvicorn", "websockets", "httpx", "starlette", "structlog", "anyio"}
    assert not {name for name in found if name.startswith(("relay.server", "relay.settings", "relay.audit"))}


@pytest.mark.parametrize("command", ["stats", "anomalies"])
def test_querying_the_audit_log_imports_no_server(command: str, tmp_path: Any) -> None:
    """It needs neither the library for settings nor keys; and for the answer in a pipe, none of tables."""
    (tmp_path / "relay.toml").write_text("[audit]\n")
    (tmp_path / "audit.jsonl").touch()
    found = modules("audit", command, "--config", str(tmp_path / "relay.toml"))
    assert not found & {"uvicorn", "websockets", "cryptography", "httpx", "starlette", "structlog"}
    assert not found & {"pydantic", "rich", "asyncio", "duckdb"}


@pytest.mark.parametrize(
    "command", ["verify {log}", "tail --no-follow --file {log}", "verify --help", "why --help", "--help"]
)
def test_only_questions_open_a_database(command: str, tmp_path: Any) -> None:
    """`verify` and `tail` read the log itself, and a help reads nothing."""
    (tmp_path / "audit.jsonl").touch()
    arguments = command.format(log=tmp_path / "audit.jsonl").split()
    assert "_duckdb" not in modules("audit", *arguments)


@pytest.mark.parametrize(("name", "listed", "loaded"), COMMANDS, ids=[name for name, _, _ in COMMANDS])
def test_lists_quote_the_commands(name: str, listed: Any, loaded: Any) -> None:
    """The line that a group shows for a command is the first one of the command's own help."""
    assert loaded.name == name.rpartition(" ")[2]
    assert " ".join(loaded.help.split("\n\n")[0].split()) == " ".join(listed.help.split("\n\n")[0].split())


@pytest.mark.parametrize(("name", "_", "loaded"), COMMANDS, ids=[name for name, _, _ in COMMANDS])
def test_help_shows_what_stands_in_brackets(name: str, _: Any, loaded: Any) -> None:
    """No help text has a word in brackets that Rich takes for a style and leaves out."""
    for text in (loaded.help, *(getattr(param, "help", None) for param in loaded.params)):
        assert render(text or "").plain == (text or "").replace("\\[", "["), name


def test_version() -> None:
    """`relay --version` prints the name and the version, and nothing else."""
    command = [sys.executable, "-m", "relay", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout == f"relay {relay.__version__}\n"


def test_a_misspelt_command_is_refused_with_a_hint() -> None:
    """A typing mistake is exit code 2, and the answer names the command that was probably meant."""
    command = [sys.executable, "-m", "relay", "audti"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "'audit'" in done.stderr
