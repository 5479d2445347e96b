"""`relay config`: says what is wrong without starting anything, and shows settings without secrets."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from relay.cli import main
from tests.support.relay_process import PUBLISHER_SECRET, REF_KEY, SECRET, make_relay


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a relay.toml that is fine, and keys; the command runs there, without other settings."""
    for name in os.environ:
        if name.startswith("RELAY_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    return make_relay(tmp_path, bff='backend = "http://127.0.0.1:9000"').folder


class Command:
    """Runs `relay` in this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Return exit code, standard output and standard error."""
        self._monkeypatch.setattr(sys, "argv", ["relay", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = self._capsys.readouterr()
        return int(ended.value.code or 0), out, err


@pytest.fixture
def relay(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command."""
    return Command(monkeypatch, capsys)


def test_good_settings_are_fine(relay: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0 and one line that counts; the file of this folder is found, or named by option or variable."""
    found = [relay("config", "check"), relay("config", "check", "--config", "relay.toml")]
    monkeypatch.setenv("RELAY_CONFIG", str(folder / "relay.toml"))
    monkeypatch.chdir("/")
    found.append(relay("config", "check"))
    for code, out, err in found:
        assert (code, err) == (0, "")
        [line] = out.splitlines()
        assert re.search(r"fine\. \d endpoints, 2 roles, 1 publisher\.", line)
    assert sorted(path.name for path in folder.iterdir()) == ["keys", "relay.toml"], "nothing was written"


def test_each_mistake_is_a_line(relay: Command, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 2, the mistakes on standard error, nothing else."""
    text = (folder / "relay.toml").read_text()
    (folder / "relay.toml").write_text(text.replace('level = "debug"', 'level = "loud"\nhunter2 = 1'))
    monkeypatch.setenv("RELAY_LOGG__LEVEL", "info")
    for command in (["config", "check"], ["config", "show"], ["serve"]):
        code, out, err = relay(*command)
        assert (code, out) == (2, "")
        assert len(err.splitlines()) == 3


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (SECRET, "hunter2", "session.signed.secret has 7 bytes"),
        (', require = { token_use = "access" }', "", "session.signed must tell a session from"),
        (
            'algorithm = "HS256", secret = ',
            'algorithm = "RS256", public_key_file = ',
            "session.signed.public_key_file: ",
        ),
    ],
)
def test_what_would_not_start_is_not_fine(
    relay: Command, folder: Path, old: str, new: str, complaint: str
) -> None:
    """A key that is too short, unsafe or missing is said without starting."""
    text = (folder / "relay.toml").read_text()
    assert old in text
    (folder / "relay.toml").write_text(text.replace(old, new))
    code, out, err = relay("config", "check")
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert complaint in err
    assert "hunter2" not in err


def test_missing_keys_are_not_fine(relay: Command, folder: Path) -> None:
    """Without a private key there is one line that says how to make one."""
    for path in (folder / "keys").iterdir():
        path.unlink()
    code, _, err = relay("config", "check")
    assert code == 2
    assert "relay keys new --dir" in err


def test_no_file_is_no_mistake_by_itself(
    relay: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a folder without relay.toml one line says so. With a variable, the others that are missing are named."""
    (folder / "relay.toml").unlink()
    code, _, err = relay("config", "check")
    assert code == 2
    assert err.startswith(
        "There are no settings: this folder has no relay.toml, and no RELAY_* variable is set."
    )
    assert len(err.splitlines()) == 1
    monkeypatch.setenv("RELAY_PUBLIC__URL", "https://app.example.com")
    first, *others = relay("config", "check")[2].splitlines()
    assert first == "settings: only RELAY_* variables were read, because this folder has no relay.toml"
    assert [line.partition(";")[0] for line in others] == [
        "settings: public.stream_url: is missing",
        "settings: session: is missing",
        "settings: endpoints: is missing",
    ]
    monkeypatch.delenv("RELAY_PUBLIC__URL")
    _, _, err = relay("config", "check", "--config", "none.toml")
    assert err == "none.toml: there is no such file; name the settings file with --config\n"


def test_shown_settings_have_no_secrets(relay: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """JSON of all that takes effect, defaults included, and in the place of each secret asterisks."""
    monkeypatch.setenv("RELAY_LIMITS__CHANNELS", "7")
    code, out, err = relay("config", "show")
    assert (code, err) == (0, "")
    shown = json.loads(out)
    assert shown["limits"]["channels"] == 7
    assert shown["limits"]["connections_per_session"] == 10
    assert shown["session"]["ref_key"] == shown["session"]["signed"]["secret"] == "**********"
    assert not [secret for secret in (SECRET, REF_KEY, PUBLISHER_SECRET) if secret in out]


def test_the_process_prints_one_line_and_exits_with_2(folder: Path) -> None:
    """As a process it does the same: one line, exit code 2, no traceback."""
    (folder / "relay.toml").write_text("[")
    command = [sys.executable, "-m", "relay", "config", "check", "--config", str(folder / "relay.toml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2])
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
