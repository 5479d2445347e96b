"""Key files: what is wrong with a folder is said in one sentence."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from relay.keys.files import create_signing_key, load_keys, private_path, public_path
from tests.support.key_folders import mistake

# --- what is wrong with a folder


def test_a_missing_folder_is_reported_with_the_command_that_makes_a_key(tmp_path: Path) -> None:
    """The sentence has the command that makes a key there."""
    assert f"relay keys new --dir {tmp_path / 'keys'}" in mistake(tmp_path / "keys")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    """It says that it is none."""
    (tmp_path / "keys").touch()
    assert "not a directory" in mistake(tmp_path / "keys")


def test_a_folder_without_a_key_is_reported(tmp_path: Path) -> None:
    """Also where other files are in it."""
    (tmp_path / "README").touch()
    assert f"Run `relay keys new --dir {tmp_path}`" in mistake(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o660, 0o610, 0o777])
def test_a_private_file_that_others_can_use(tmp_path: Path, mode: int) -> None:
    """It is refused for group and for others; the sentence says what to do."""
    path = private_path(tmp_path, create_signing_key(tmp_path).kid)
    path.chmod(mode)
    text = mistake(tmp_path)
    assert f"chmod 600 {path}" in text
    assert f"{mode:04o}" in text


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_of_its_owner(tmp_path: Path, mode: int) -> None:
    """Reading is enough."""
    private_path(tmp_path, create_signing_key(tmp_path).kid).chmod(mode)
    assert load_keys(tmp_path).signing is not None


def write_private(folder: Path, data: bytes) -> Path:
    path = folder / "0123456789abcdef.private.pem"
    path.write_bytes(data)
    path.chmod(0o600)
    return path


def pem(
    key: Ed25519PrivateKey | rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed448.Ed448PrivateKey,
) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


ED25519 = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: b"", "no private key in PEM form"),
        (lambda: b"garbage", "no private key in PEM form"),
        (lambda: b"\xff\x00" * 100, "no private key in PEM form"),
        (lambda: pem(ED25519)[:60], "no private key in PEM form"),
        (lambda: pem(ED25519).replace(b"MC4", b"MC5"), "no private key in PEM form"),
        (
            lambda: ED25519.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            "no private key",
        ),
        (lambda: pem(ec.generate_private_key(ec.SECP256R1())), "not an Ed25519 key"),
        (lambda: pem(ed448.Ed448PrivateKey.generate()), "not an Ed25519 key"),
        (lambda: pem(rsa.generate_private_key(65537, 2048)), "not an Ed25519 key"),
        (
            lambda: ED25519.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"x")),
            "is encrypted",
        ),
        (lambda: pem(ED25519), "its name says another key"),
        (lambda: b"x" * 70_000, "too large for a key file"),
    ],
    ids=[
        "empty",
        "text",
        "bytes",
        "cut",
        "damaged",
        "public",
        "ec",
        "ed448",
        "rsa",
        "encrypted",
        "misnamed",
        "large",
    ],
)
def test_private_files_that_are_none(tmp_path: Path, make: Callable[[], bytes], sentence: str) -> None:
    """Each is named, with what is wrong."""
    path = write_private(tmp_path, make())
    text = mistake(tmp_path)
    assert sentence in text
    assert str(path) in text


def test_one_bad_file_beside_a_good_one(tmp_path: Path) -> None:
    """It is not passed over: the operator believes that this key is in use."""
    create_signing_key(tmp_path)
    write_private(tmp_path, b"garbage")
    assert "0123456789abcdef" in mistake(tmp_path)


def test_a_folder_or_pipe_by_the_name_of_a_key(tmp_path: Path) -> None:
    """Neither is a regular file, and reading the pipe would never end."""
    os.mkfifo(tmp_path / "a.private.pem", 0o600)
    assert "a.private.pem is not a file" in mistake(tmp_path)
    (tmp_path / "a.private.pem").unlink()
    (tmp_path / "b.private.pem").mkdir()
    assert "b.private.pem can't be read (is a directory)" in mistake(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda jwk: b"", "no public key"),
        (lambda jwk: b"\xff", "not UTF-8"),
        (lambda jwk: b"[]", "not a JSON object"),
        (lambda jwk: json.dumps(jwk)[:-1] + ',"kid":"x"}', "a name appears twice"),
        (lambda jwk: jwk | {"d": "AAAA"}, "private or secret key"),
        (lambda jwk: jwk | {"crv": "Ed448"}, "not an Ed25519 signature key"),
        (lambda jwk: jwk | {"kty": "RSA"}, "not an Ed25519 signature key"),
        (lambda jwk: jwk | {"use": "enc"}, "not an Ed25519 signature key"),
        (lambda jwk: jwk | {"x": jwk["x"] + "="}, "unpadded base64url"),
        (lambda jwk: jwk | {"x": 1}, "unpadded base64url"),
        (lambda jwk: jwk | {"kid": "0123456789abcdef"}, "does not belong to its key"),
        (lambda jwk: {name: jwk[name] for name in jwk if name != "kid"}, "needs a kid"),
        (lambda jwk: jwk | {"signs_from": "soon"}, "signs_from"),
        (lambda jwk: jwk | {"revoked_at": True}, "revoked_at"),
        (lambda jwk: jwk | {"retired_at": -1}, "must be Unix seconds"),
    ],
)
def test_public_files_that_are_none(
    tmp_path: Path, change: Callable[[dict[str, str]], object], sentence: str
) -> None:
    """Each is named, with what is wrong."""
    path = public_path(tmp_path, create_signing_key(tmp_path).kid)
    changed = change(json.loads(path.read_text()))
    path.write_bytes(
        changed
        if isinstance(changed, bytes)
        else (changed if isinstance(changed, str) else json.dumps(changed)).encode()
    )
    text = mistake(tmp_path)
    assert sentence in text
    assert str(path) in text


def test_a_public_file_under_another_name(tmp_path: Path) -> None:
    """The sentence says which name is right."""
    made = create_signing_key(tmp_path)
    public_path(tmp_path, made.kid).rename(tmp_path / "prod.public.jwk.json")
    assert f"Rename it to {made.kid}.public.jwk.json" in mistake(tmp_path)
