"""`relay keys`: what is printed can be used as it stands."""

import re
import tomllib
from pathlib import Path

import pytest

from relay.keys.bearer import check_bearer
from relay.keys.files import load_keys
from tests.keys.conftest import RelayCommand


def test_new(tmp_path: Path, relay: RelayCommand) -> None:
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


def test_a_second_key_waits(tmp_path: Path, relay: RelayCommand) -> None:
    """The command says that the first key goes on signing, and what to do so that the second does."""
    relay("keys", "new", "--dir", str(tmp_path))
    first = load_keys(tmp_path).signing
    assert first is not None
    public = next(tmp_path.glob("*.public.jwk.json"))
    public.write_text(re.sub(r'"iat": \d+', '"iat": 1', public.read_text()))
    done = relay("keys", "new", "--dir", str(tmp_path))
    assert f"{first.kid} goes on signing" in done.out
    assert f"remove\n{tmp_path / first.kid}.private.pem" in done.out


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


def test_publisher(relay: RelayCommand) -> None:
    """The key's own line is the key, and the rest is a section of relay.toml that accepts it."""
    done = relay("keys", "publisher", "pricing", "--channels", "prices.>", "--channels", "fx.*")
    assert done.code == 0
    key, section = done.out.split("\n\n")
    presented = key.splitlines()[-1]
    settings = tomllib.loads(section)["publishers"]["pricing"]
    assert settings["channels"] == ["prices.>", "fx.*"]
    assert check_bearer(presented, {"pricing": settings["secret_sha256"]}) == "pricing"
    assert presented.split(".")[1] not in section


def test_publisher_without_channels(relay: RelayCommand) -> None:
    """It may publish nothing until somebody decides what, and the line says so."""
    done = relay("keys", "publisher", "pricing")
    assert tomllib.loads(done.out.split("\n\n")[1])["publishers"]["pricing"]["channels"] == []
    assert "name what it may publish to" in done.out


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
def test_usage(arguments: tuple[str, ...], relay: RelayCommand) -> None:
    """A missing argument or an unknown command is a usage error."""
    assert relay(*arguments).code == 2
