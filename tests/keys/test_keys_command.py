"""`relay keys`: what is printed can be used as it stands."""

import json
import tomllib
from pathlib import Path

import pytest

from relay.keys.api_keys import check_bearer
from relay.keys.files import load_keys
from tests.support.command_line import RelayCommand
from tests.support.relay_process import make_relay


def test_new_prints_the_key_its_files_and_its_setting(tmp_path: Path, relay: RelayCommand) -> None:
    """It names the key and its files, and prints the line for relay.toml."""
    folder = tmp_path / "my keys"
    done = relay("keys", "new", "--dir", str(folder))
    ring = load_keys(folder)
    assert ring.signing is not None
    assert done.code == 0
    assert f"kid      {ring.signing.kid}\n" in done.out
    for line in done.out.splitlines()[1:3]:
        assert Path(line.split(maxsplit=1)[1]).is_file()
    setting = next(line for line in done.out.splitlines() if line.startswith("keys_dir"))
    assert tomllib.loads(setting) == {"keys_dir": str(folder)}


def test_new_prints_nothing_private(tmp_path: Path, relay: RelayCommand) -> None:
    """The private key is in its file only."""
    done = relay("keys", "new", "--dir", str(tmp_path))
    private = next(tmp_path.glob("*.private.pem")).read_text().splitlines()[1]
    assert private not in done.out + done.err


def test_a_second_key_is_made_by_rotating(tmp_path: Path, relay: RelayCommand) -> None:
    """`new` is for the first: where there is one already, it makes none, and says which command does."""
    relay("keys", "new", "--dir", str(tmp_path))
    before = sorted(tmp_path.iterdir())
    done = relay("keys", "new", "--dir", str(tmp_path))
    assert (done.code, done.out) == (2, "")
    assert f"relay keys rotate --dir {tmp_path}" in done.err
    assert sorted(tmp_path.iterdir()) == before


def test_new_where_nothing_can_be_written(tmp_path: Path, relay: RelayCommand) -> None:
    """One line on standard error, exit code 2."""
    (tmp_path / "file").touch()
    done = relay("keys", "new", "--dir", str(tmp_path / "file"))
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)


def test_new_beside_a_bad_key(tmp_path: Path, relay: RelayCommand) -> None:
    """What the relay would say to the folder at its start is said now."""
    (tmp_path / "x.private.pem").write_text("garbage")
    (tmp_path / "x.private.pem").chmod(0o600)
    done = relay("keys", "new", "--dir", str(tmp_path))
    assert done.code == 2
    assert "x.private.pem holds no private key" in done.err


def test_publisher_prints_a_key_and_a_section_that_accepts_it(relay: RelayCommand) -> None:
    """The key's own line is the key, and the rest is a section of relay.toml that accepts it."""
    done = relay("keys", "publisher", "pricing", "--channels", "prices.>", "--channels", "fx.*")
    assert done.code == 0
    key, section = done.out.split("\n\n")
    presented = key.splitlines()[-1]
    settings = tomllib.loads(section)["publishers"]["pricing"]
    assert settings["channels"] == ["prices.>", "fx.*"]
    assert check_bearer(presented, {"pricing": settings["secret_sha256"]}) == "pricing"
    assert presented.split(".")[1] not in section


def test_a_publisher_without_channels_may_publish_nothing(relay: RelayCommand) -> None:
    """It may publish nothing until somebody decides what, and the line says so."""
    done = relay("keys", "publisher", "pricing")
    assert tomllib.loads(done.out.split("\n\n")[1])["publishers"]["pricing"]["channels"] == []
    assert "name the channels that it may publish to" in done.out


@pytest.mark.parametrize(
    "arguments",
    [("a.b",), ("",), ("Pricing",), ("x", "--channels", "a b"), ("x", "--channels", ""), ("\x1b[2J",)],
)
def test_publisher_with_bad_arguments(arguments: tuple[str, ...], relay: RelayCommand) -> None:
    """One printable line on standard error, exit code 2, and no key made."""
    done = relay("keys", "publisher", *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.rstrip("\n").isprintable()


@pytest.mark.parametrize("arguments", [("keys", "new"), ("keys", "publisher"), ("keys", "nonsense")])
def test_wrong_arguments_are_a_usage_error(arguments: tuple[str, ...], relay: RelayCommand) -> None:
    """A missing argument or an unknown command is a usage error."""
    assert relay(*arguments).code == 2


@pytest.fixture
def folder(tmp_path: Path, relay: RelayCommand) -> str:
    """A folder with a first key."""
    relay("keys", "new", "--dir", str(tmp_path / "keys"))
    return str(tmp_path / "keys")


def listed(relay: RelayCommand, folder: str) -> dict[str, str]:
    """Return each key's state, as `relay keys list --json` has it."""
    done = relay("keys", "list", "--dir", folder, "--json")
    assert done.code == 0
    return {key["kid"]: key["state"] for key in json.loads(done.out)["keys"]}


def test_a_key_s_life_by_commands(folder: str, relay: RelayCommand) -> None:
    """Rotate, list, take back, rotate again, revoke: each says what it did, and the list agrees."""
    (first,) = listed(relay, folder)
    done = relay("keys", "rotate", "--dir", folder)
    second = done.out.split()[1]
    assert (done.code, "in 180 s" in done.out) == (0, True)
    assert listed(relay, folder) == {first: "signing", second: "next"}
    table = relay("keys", "list", "--dir", folder).out.splitlines()
    assert [line.split()[:2] for line in table] == [["kid", "state"], [first, "signing"], [second, "next"]]
    assert relay("keys", "retire", second, "--dir", folder).out == f"retired  {second}\n"
    third = relay("keys", "rotate", "--dir", folder).out.split()[1]
    done = relay("keys", "revoke", first, "--dir", folder)
    assert f"signing  {third}" in done.out
    assert listed(relay, folder) == {first: "revoked", second: "retired", third: "signing"}


def test_what_can_not_be_done_is_one_line(folder: str, relay: RelayCommand) -> None:
    """Exit code 2, one line on standard error, and the folder as it was."""
    (first,) = listed(relay, folder)
    for arguments in (("retire", first), ("retire", "nope"), ("revoke", "nope")):
        done = relay("keys", *arguments, "--dir", folder)
        assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert listed(relay, folder) == {first: "signing"}


def test_the_settings_say_where_and_how_long(
    tmp_path: Path, relay: RelayCommand, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without --dir it is tokens.keys_dir; without settings either, one line asks for one of them."""
    monkeypatch.chdir(tmp_path)
    done = relay("keys", "list")
    assert (done.code, "--dir" in done.err) == (2, True)
    make_relay(tmp_path, extra="[tokens]\npublish_before_sign_s = 7")
    done = relay("keys", "rotate", "--config", str(tmp_path / "relay.toml"))
    assert (done.code, "in 7 s" in done.out) == (0, True)
    assert sorted(listed(relay, str(tmp_path / "keys")).values()) == ["next", "signing"]


def test_operator_prints_a_key_and_a_section_that_accepts_it(relay: RelayCommand) -> None:
    """As for a publisher: the key once, and a section that accepts it."""
    done = relay("keys", "operator", "ops", "--may", "read", "--may", "revoke", "--may", "read")
    key, section = done.out.split("\n\n")
    settings = tomllib.loads(section)["operators"]["ops"]
    assert settings["may"] == ["read", "revoke"]
    assert check_bearer(key.splitlines()[-1], {"ops": settings["secret_sha256"]}) == "ops"
    assert tomllib.loads(relay("keys", "operator", "x").out.split("\n\n")[1])["operators"]["x"]["may"] == [
        "read"
    ]
    assert relay("keys", "operator", "ops", "--may", "everything").code == 2
