"""Key files: made, loaded, several of them."""

import json
import os
import re
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.core.errors import ConfigurationError
from relay.keys.files import create_signing_key, load_keys, private_path, public_path
from relay.keys.jwks import key_id
from tests.keys.folders import set_age

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
