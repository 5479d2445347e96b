"""White space around a secret: refused before anything starts, for every secret that the settings have."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel, SecretStr

from relay.core.errors import ConfigurationError
from relay.settings.load import Settings, load
from tests.support.relay_process import REF_KEY, SECRET, make_relay

AROUND = {
    "a line break after it": "{}\n",
    "a Windows line break after it": "{}\r\n",
    "a space after it": "{} ",
    "a space before it": " {}",
    "a tab before it": "\t{}",
    "a no-break space after it": "{}\xa0",
    "a zero-width space after it": "{}\u200b",
    "a byte order mark before it": "\ufeff{}",
}
REQUIRE = "RELAY_SESSION__SIGNED__REQUIRE__TOKEN_USE"


def secrets(model: type[BaseModel], path: str = "") -> Iterator[str]:
    """Yield the path of each secret of a section and of the sections in it."""
    for name, field in model.model_fields.items():
        for kind in _kinds(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from secrets(kind, f"{path}{name}.")
            elif kind is SecretStr:
                yield f"{path}{name}"


def _kinds(annotation: Any) -> Iterator[Any]:
    inner = get_args(annotation)
    if not inner:
        yield annotation
    for one in inner:
        yield from _kinds(one)


def with_secret(folder: Path, setting: str, value: str) -> tuple[Path, dict[str, str]]:
    """Write settings in which this secret comes from a variable; return the file and the variables."""
    file = make_relay(folder).folder / "relay.toml"
    text = file.read_text()
    variables = {"RELAY_" + setting.upper().replace(".", "__"): value}
    if setting == "session.ref_key":
        text = text.replace(f'ref_key = "{REF_KEY}"\n', "")
    elif setting == "session.authjs.secrets":
        text = text.replace("[session]\n", '[session]\nverifier = ["signed", "authjs"]\n')
        variables = {"RELAY_SESSION__AUTHJS__SECRETS": f'["{value.encode("unicode_escape").decode()}"]'}
        variables = {name: text.replace("\\x", "\\u00") for name, text in variables.items()}
    elif setting != "engine.url":
        text = text.replace(f'secret = "{SECRET}", ', "")
    file.write_text(text)
    return file, variables


def test_all_secrets_are_known_here() -> None:
    """A new secret has to be added to these tests. The check itself is in the base of all sections."""
    assert sorted(set(secrets(Settings))) == [
        "engine.url",
        "session.authjs.secrets",
        "session.ref_key",
        "session.signed.secret",
        "session.signed.secret_base64",
    ]


@pytest.mark.parametrize("setting", sorted(set(secrets(Settings))))
@pytest.mark.parametrize("form", AROUND)
def test_white_space_around_a_secret_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, setting: str, form: str
) -> None:
    """The line names the variable and the setting, and quotes nothing. Without the white space the secret is taken."""
    secret = "VGhpcyBpcyBhIHNlY3JldCBvZiBmb3J0eS1zaXggYnl0ZXMgaW4gYmFzZTY0"
    file, variables = with_secret(tmp_path, setting, AROUND[form].format(secret))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigurationError) as raised:
        load(file)
    [line] = str(raised.value).split("\n")
    assert line.startswith(f"{next(iter(variables))}: {setting}: begins or ends with white space")
    assert secret not in line
    for name, value in with_secret(tmp_path, setting, secret)[1].items():
        monkeypatch.setenv(name, value)
    load(file)


@pytest.mark.parametrize("command", [["serve"], ["config", "check"], ["doctor", "--offline"]])
def test_the_commands_refuse_it(tmp_path: Path, command: list[str]) -> None:
    """The start, the check of the settings and the doctor say the same line, and nothing is started."""
    file, variables = with_secret(tmp_path, "session.signed.secret", f"{SECRET}\n")
    done = subprocess.run(
        [sys.executable, "-m", "relay", *command, "--config", str(file)],
        env=variables,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert "session.signed.secret: begins or ends with white space" in done.stderr
    assert SECRET not in done.stdout + done.stderr
