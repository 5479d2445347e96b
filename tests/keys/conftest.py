"""The command line as a fixture: one call, and what came out of it."""

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from relay.cli import main


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
