"""Signing keys in files: what a folder means, and one sentence for everything that is wrong with it."""

import json
import os
import re
import stat
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

from relay.core.errors import ConfigurationError
from relay.core.tokens import SigningKey
from relay.keys.files import create_signing_key, load_keys, private_path, public_path
from relay.keys.jwks import key_id


def mistake(folder: Path) -> str:
    """The one sentence with which `load_keys` refuses."""
    with pytest.raises(ConfigurationError) as caught:
        load_keys(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert "PRIVATE" not in text
    return text


def set_age(folder: Path, key: SigningKey, made: int) -> None:
    path = public_path(folder, key.kid)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"iat": made}))


# --- making and loading


def test_a_new_key_is_loaded_again(tmp_path: Path) -> None:
    """The key that was made signs, and its public side verifies."""
    made = create_signing_key(tmp_path)
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.signing.kid == made.kid == key_id(made.key.public_key())
    assert ring.signing.key.private_bytes_raw() == made.key.private_bytes_raw()
    assert list(ring.verify) == [made.kid]
    assert ring.verify[made.kid].key == made.key.public_key()


def test_file_modes(tmp_path: Path) -> None:
    """The private file is for its owner alone, whatever the umask; so is a folder that was made for it."""
    before = os.umask(0)
    try:
        made = create_signing_key(tmp_path / "new" / "keys")
    finally:
        os.umask(before)
    folder = tmp_path / "new" / "keys"
    assert stat.S_IMODE(private_path(folder, made.kid).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_kid_is_short_and_plain(tmp_path: Path) -> None:
    """16 hex digits: fit for a file name, and for a command line."""
    assert re.fullmatch(r"[0-9a-f]{16}", create_signing_key(tmp_path).kid)


def test_kid_is_the_beginning_of_the_thumbprint() -> None:
    """RFC 8037 A.3 has the thumbprint of this key: kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k."""
    key = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert key_id(key.public_key()) == "90facafea9b1556698540f70c0117a22"[:16]


def test_the_public_file_has_nothing_private(tmp_path: Path) -> None:
    """It is what an operator copies to other machines."""
    made = create_signing_key(tmp_path)
    jwk = json.loads(public_path(tmp_path, made.kid).read_text())
    assert set(jwk) == {"kty", "crv", "x", "kid", "alg", "use", "iat"}


def test_the_key_is_not_in_a_repr(tmp_path: Path) -> None:
    """A key ring that is logged shows names only."""
    create_signing_key(tmp_path)
    assert "object at" not in repr(load_keys(tmp_path))


def test_nothing_is_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a file of that name is already, even a dangling link, nothing is written and nothing is removed."""
    key = Ed25519PrivateKey.generate()
    monkeypatch.setattr(Ed25519PrivateKey, "generate", lambda: key)
    target = tmp_path / "elsewhere"
    link = private_path(tmp_path, key_id(key.public_key()))
    link.symlink_to(target)
    with pytest.raises(ConfigurationError, match="file exists"):
        create_signing_key(tmp_path)
    assert link.is_symlink()
    assert not target.exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_leaves_no_private_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What could not be written whole is removed again."""
    real_open = os.open

    def open_full(path: Path, flags: int, mode: int = 0o777) -> int:
        descriptor = real_open(path, flags, mode)
        if str(path).endswith(".pem"):
            full = real_open("/dev/full", os.O_WRONLY)
            os.dup2(full, descriptor)
            os.close(full)
        return descriptor

    monkeypatch.setattr(os, "open", open_full)
    with pytest.raises(ConfigurationError, match="no space left on device"):
        create_signing_key(tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name.endswith(".pem")] == []


@pytest.mark.parametrize("place", ["/proc/relay-keys", "/dev/null/keys", "file/keys"])
def test_a_folder_that_cannot_be_made(place: str, tmp_path: Path) -> None:
    """One sentence names the folder and why."""
    (tmp_path / "file").touch()
    folder = tmp_path / place  # an absolute place stays what it is
    with pytest.raises(ConfigurationError, match=re.escape(str(folder))):
        create_signing_key(folder)


# --- several keys


def test_the_oldest_key_signs(tmp_path: Path) -> None:
    """A new key is published first; streams know it before the first token is signed with it."""
    keys = [create_signing_key(tmp_path) for _ in range(4)]
    for made, key in zip((300, 100, 400, 200), keys, strict=True):
        set_age(tmp_path, key, made)
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.signing.kid == keys[1].kid
    assert set(ring.verify) == {key.kid for key in keys}


def test_keys_of_one_second_have_an_order(tmp_path: Path) -> None:
    """Every start chooses the same one."""
    keys = [create_signing_key(tmp_path) for _ in range(3)]
    for key in keys:
        set_age(tmp_path, key, 100)
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.signing.kid == min(key.kid for key in keys)


def test_retiring_a_key(tmp_path: Path) -> None:
    """Without its private file a key still verifies and the next one signs; without both it is gone."""
    old, new = create_signing_key(tmp_path), create_signing_key(tmp_path)
    set_age(tmp_path, old, 100)
    private_path(tmp_path, old.kid).unlink()
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.signing.kid == new.kid
    assert set(ring.verify) == {old.kid, new.kid}
    public_path(tmp_path, old.kid).unlink()
    assert set(load_keys(tmp_path).verify) == {new.kid}


def test_a_stream_has_public_keys_only(tmp_path: Path) -> None:
    """It checks tokens, and can't make one."""
    made = create_signing_key(tmp_path)
    private_path(tmp_path, made.kid).unlink()
    ring = load_keys(tmp_path)
    assert ring.signing is None
    assert set(ring.verify) == {made.kid}


def test_a_private_file_alone_is_a_key(tmp_path: Path) -> None:
    """It may come from a secret store; its public side follows from it, and it counts as the oldest."""
    first, alone = create_signing_key(tmp_path), create_signing_key(tmp_path)
    public_path(tmp_path, alone.kid).unlink()
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.signing.kid == alone.kid
    assert set(ring.verify) == {first.kid, alone.kid}


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Notes, backups and folders lie beside the keys without harm."""
    made = create_signing_key(tmp_path)
    (tmp_path / "README").write_text("x")
    (tmp_path / "old.pem").write_bytes(b"\xff")
    (tmp_path / "backup").mkdir()
    assert list(load_keys(tmp_path).verify) == [made.kid]


# --- what is wrong with a folder


def test_missing_folder(tmp_path: Path) -> None:
    """The sentence has the command that makes a key there."""
    assert f"relay keys new --dir {tmp_path / 'keys'}" in mistake(tmp_path / "keys")


def test_a_file_instead_of_a_folder(tmp_path: Path) -> None:
    """It says that it is none."""
    (tmp_path / "keys").touch()
    assert "not a directory" in mistake(tmp_path / "keys")


def test_empty_folder(tmp_path: Path) -> None:
    """Also where other files are in it."""
    (tmp_path / "README").touch()
    assert f"Run `relay keys new --dir {tmp_path}`" in mistake(tmp_path)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620, 0o602, 0o660, 0o610, 0o777])
def test_a_private_file_that_others_can_use(tmp_path: Path, mode: int) -> None:
    """Refused, whoever of group and others it is; the sentence says what to do."""
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
        (lambda: pem(ED25519), "not the one of its name"),
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
    """Neither is a file, and reading the pipe would wait for ever."""
    os.mkfifo(tmp_path / "a.private.pem", 0o600)
    assert "a.private.pem is not a file" in mistake(tmp_path)
    (tmp_path / "a.private.pem").unlink()
    (tmp_path / "b.private.pem").mkdir()
    assert "b.private.pem can't be read (is a directory)" in mistake(tmp_path)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda jwk: b"", "no public key"),
        (lambda jwk: b"\xff", "not valid Unicode"),
        (lambda jwk: b"[]", "not a JSON object"),
        (lambda jwk: json.dumps(jwk)[:-1] + ',"kid":"x"}', "a name appears twice"),
        (lambda jwk: jwk | {"d": "AAAA"}, "private or secret key"),
        (lambda jwk: jwk | {"crv": "Ed448"}, "not an Ed25519 signature key"),
        (lambda jwk: jwk | {"kty": "RSA"}, "not an Ed25519 signature key"),
        (lambda jwk: jwk | {"use": "enc"}, "not an Ed25519 signature key"),
        (lambda jwk: jwk | {"x": jwk["x"] + "="}, "unpadded base64url"),
        (lambda jwk: jwk | {"x": 1}, "unpadded base64url"),
        (lambda jwk: jwk | {"kid": "0123456789abcdef"}, "not its key's own"),
        (lambda jwk: {name: jwk[name] for name in jwk if name != "kid"}, "needs a kid"),
    ],
    ids=str,
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
