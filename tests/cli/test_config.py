"""`relay config`: says what is wrong without starting anything, and shows settings without secrets."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.service import PUBLISHER_SECRET, REF_KEY, SECRET, make_relay


def relay(*arguments: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a folder, without the settings of whoever runs the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RELAY_")}
    return subprocess.run(
        [sys.executable, "-m", "relay", *arguments],
        cwd=folder,
        env=own | {"PYTHONPATH": str(Path(__file__).parents[2])} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a relay.toml that is fine, and keys."""
    return make_relay(tmp_path, bff='backend = "http://127.0.0.1:9000"').folder


def test_good_settings_are_fine(folder: Path) -> None:
    """Exit code 0 and one line that counts; the file of this folder is found, or named by option or variable."""
    for arguments, variables in (
        ([], {}),
        (["--config", "relay.toml"], {}),
        ([], {"RELAY_CONFIG": str(folder / "relay.toml")}),
    ):
        done = relay("config", "check", *arguments, folder=folder, **variables)
        assert (done.returncode, done.stderr) == (0, "")
        [line] = done.stdout.splitlines()
        assert "fine. 2 endpoints, 2 roles, 1 publishers." in line
    assert sorted(path.name for path in folder.iterdir()) == ["keys", "relay.toml"], "nothing was written"


def test_each_mistake_is_a_line(folder: Path) -> None:
    """Exit code 2, the mistakes on standard error, nothing else."""
    text = (folder / "relay.toml").read_text()
    (folder / "relay.toml").write_text(text.replace('level = "debug"', 'level = "loud"\nhunter2 = 1'))
    done = relay("config", "check", folder=folder, RELAY_LOGG__LEVEL="info")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 3
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        (SECRET, "hunter2", "session.signed.secret has 7 bytes"),
        (
            'require = { token_use = "access" }',
            "",
            "session.signed must say what tells a session from other tokens",
        ),
        (
            'algorithm = "HS256", secret = ',
            'algorithm = "RS256", public_key = ',
            "session.signed.public_key: ",
        ),
    ],
)
def test_what_would_not_start_is_not_fine(folder: Path, old: str, new: str, complaint: str) -> None:
    """A key that is too short, unsafe or missing is said without starting, in the words of the start."""
    text = (folder / "relay.toml").read_text()
    assert old in text
    (folder / "relay.toml").write_text(text.replace(old, new).replace(", ,", ",").replace(",  }", " }"))
    checked, started = (relay(*command, folder=folder) for command in (["config", "check"], ["serve"]))
    assert (checked.returncode, checked.stdout) == (2, "")
    assert complaint in checked.stderr
    assert (started.returncode, started.stderr) == (2, checked.stderr)
    assert "hunter2" not in checked.stderr


def test_missing_keys_are_not_fine(folder: Path) -> None:
    """Without a private key there is one line that says how to make one."""
    for path in (folder / "keys").iterdir():
        path.unlink()
    done = relay("config", "check", folder=folder)
    assert done.returncode == 2
    assert "relay keys new --dir" in done.stderr


def test_no_file_is_no_mistake_by_itself(tmp_path: Path) -> None:
    """In a folder without relay.toml the variables alone count, and say what is missing."""
    done = relay("config", "check", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        f"settings: {name}: is missing" for name in ("public", "session", "endpoints")
    ]
    done = relay("config", "check", "--config", "none.toml", folder=tmp_path)
    assert done.stderr == "none.toml: there is no such file; name the settings with --config\n"


def test_shown_settings_have_no_secrets(folder: Path) -> None:
    """JSON of all that takes effect, defaults included, and in the place of each secret asterisks."""
    done = relay("config", "show", folder=folder, RELAY_LIMITS__CHANNELS="7")
    assert (done.returncode, done.stderr) == (0, "")
    shown = json.loads(done.stdout)
    assert shown["limits"]["channels"] == 7
    assert shown["limits"]["connections_per_session"] == 10
    assert shown["session"]["ref_key"] == shown["session"]["signed"]["secret"] == "**********"
    assert not [secret for secret in (SECRET, REF_KEY, PUBLISHER_SECRET) if secret in done.stdout]
