"""Key files: made, loaded, several of them."""

import json
import os
import re
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from relay.core.errors import ConfigurationError
from relay.core.tokens import SigningKey
from relay.keys.files import (
    begin_signing,
    create_signing_key,
    end_key,
    load_keys,
    load_records,
    private_path,
    public_path,
)
from relay.keys.jwks import key_id
from relay.keys.lifecycle import KeyState
from tests.support.key_folders import mistake, set_age

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


def test_only_the_owner_can_read_a_private_key(tmp_path: Path) -> None:
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
    assert set(jwk) == {"kty", "crv", "x", "kid", "alg", "use", "signs_from"}


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


def test_the_newest_key_whose_time_has_come_signs(tmp_path: Path) -> None:
    """A key is published first; streams know it before the first token is signed with it."""
    keys = [create_signing_key(tmp_path) for _ in range(4)]
    for made, key in zip((300, 100, 400, 200), keys, strict=True):
        set_age(tmp_path, key, made)
    ring = load_keys(tmp_path, now=399)
    assert ring.signing is not None
    assert ring.signing.kid == keys[0].kid
    assert set(ring.verify) == {key.kid for key in keys}


def test_keys_of_one_second_have_an_order(tmp_path: Path) -> None:
    """Every start chooses the same one."""
    keys = [create_signing_key(tmp_path) for _ in range(3)]
    for key in keys:
        set_age(tmp_path, key, 100)
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.signing.kid == max(key.kid for key in keys)


def test_removing_a_key_by_hand(tmp_path: Path) -> None:
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


def test_where_all_keys_have_ended_there_is_none(tmp_path: Path) -> None:
    """One sentence says so, and what to do."""
    made = create_signing_key(tmp_path)
    (record,) = load_records(tmp_path)
    end_key(tmp_path, record, state=KeyState.RETIRED, at=5)
    assert not private_path(tmp_path, made.kid).exists()
    assert f"relay keys new --dir {tmp_path}" in mistake(tmp_path)


def test_an_ended_key_s_private_file_is_not_looked_at(tmp_path: Path) -> None:
    """Somebody who copies it back, or a removal that failed half-way, brings no key to life again."""
    gone, here = create_signing_key(tmp_path), create_signing_key(tmp_path)
    kept = private_path(tmp_path, gone.kid).read_bytes()
    record = next(record for record in load_records(tmp_path) if record.kid == gone.kid)
    end_key(tmp_path, record, state=KeyState.REVOKED, at=5)
    private_path(tmp_path, gone.kid).write_bytes(kept)  # readable by others, too
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert (ring.signing.kid, list(ring.verify)) == (here.kid, [here.kid])


def test_files_are_never_seen_half_written(tmp_path: Path) -> None:
    """What lies beside a key while it is written has a name that nobody reads, and is gone afterwards."""
    create_signing_key(tmp_path)
    (record,) = load_records(tmp_path)
    begin_signing(tmp_path, record, at=7)
    assert {path.name.split(".", 1)[0] for path in tmp_path.iterdir()} == {record.kid}
    (tmp_path / f".1234.{record.kid}.private.pem").write_text("half")
    assert [one.signs_from for one in load_records(tmp_path)] == [7]


def test_a_stream_has_public_keys_only(tmp_path: Path) -> None:
    """It checks tokens, and can't make one."""
    made = create_signing_key(tmp_path)
    private_path(tmp_path, made.kid).unlink()
    ring = load_keys(tmp_path)
    assert ring.signing is None
    assert set(ring.verify) == {made.kid}


def test_a_public_key_knows_the_signer_of_its_private_half_alone(tmp_path: Path) -> None:
    """A signature of this process needs no check; a private key of the same kid but another value is not believed."""
    made, other = create_signing_key(tmp_path), create_signing_key(tmp_path)
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.verify[ring.signing.kid].signer is ring.signing.signer
    private_path(tmp_path, other.kid).unlink()
    assert load_keys(tmp_path).verify[other.kid].signer is None
    record = next(one for one in load_records(tmp_path) if one.kid == made.kid)
    stranger = SigningKey(kid=made.kid, key=Ed25519PrivateKey.generate())
    assert (
        replace(record, verify=replace(record.verify, signer=None)).with_private(stranger).verify.signer
        is None
    )


def test_a_private_file_alone_is_a_key(tmp_path: Path) -> None:
    """It may come from a secret store; its public side follows from it, and it signs where no newer one does."""
    first, alone = create_signing_key(tmp_path), create_signing_key(tmp_path)
    public_path(tmp_path, alone.kid).unlink()
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.signing.kid == first.kid
    assert set(ring.verify) == {first.kid, alone.kid}
    private_path(tmp_path, first.kid).unlink()
    ring = load_keys(tmp_path)
    assert ring.signing is not None
    assert ring.signing.kid == alone.kid
    assert ring.verify[alone.kid].signer is ring.signing.signer


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    """Notes, backups and folders lie beside the keys without harm."""
    made = create_signing_key(tmp_path)
    (tmp_path / "README").write_text("x")
    (tmp_path / "old.pem").write_bytes(b"\xff")
    (tmp_path / "backup").mkdir()
    assert list(load_keys(tmp_path).verify) == [made.kid]
