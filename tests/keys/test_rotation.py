"""Rotating, retiring and revoking: what becomes of the files, and what is refused to be done."""

import time
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.keys.files import create_signing_key, load_keys, load_records, private_path, public_path
from relay.keys.lifecycle import OVERLAP_S, key_statuses
from relay.keys.rotation import retire, revoke, rotate

NOW = 1_795_319_000.0
DAY = 86_400.0


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The kid of the folder's first key, which signs."""
    return create_signing_key(tmp_path, signs_from=NOW - 10 * DAY).kid


def states(folder: Path, *, now: float) -> dict[str, str]:
    """Return each key's state."""
    return {one.key.kid: one.state.value for one in key_statuses(load_records(folder), now=now)}


def test_a_rotation_publishes_first(tmp_path: Path, old: str) -> None:
    """The new key is there at once and signs when its time has come; the old one then overlaps."""
    done = rotate(tmp_path, now=NOW, publish_before_sign_s=120)
    assert (done.signs_from, done.retired) == (NOW + 120, ())
    assert states(tmp_path, now=NOW) == {old: "signing", done.key.kid: "next"}
    assert set(load_keys(tmp_path, now=NOW).verify) == {old, done.key.kid}
    assert states(tmp_path, now=NOW + 120) == {old: "overlapping", done.key.kid: "signing"}


def test_the_time_is_in_the_file(tmp_path: Path, old: str) -> None:
    """A folder that is copied, with new modification times, still says the same."""
    rotate(tmp_path, now=NOW, publish_before_sign_s=120)
    before = states(tmp_path, now=NOW + 60)
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in tmp_path.glob("*.*.*"):
        (copy / path.name).write_bytes(path.read_bytes())
        (copy / path.name).chmod(0o600)
    assert states(copy, now=NOW + 60) == before
    assert old in before


def test_one_key_waits_at_a_time(tmp_path: Path, old: str) -> None:
    """A second rotation while a key waits would make the first one pointless, so it is refused."""
    waiting = rotate(tmp_path, now=NOW, publish_before_sign_s=120).key.kid
    with pytest.raises(ConfigurationError, match=f"{waiting} is already published and signs in 20 s"):
        rotate(tmp_path, now=NOW + 100, publish_before_sign_s=120)
    assert len(states(tmp_path, now=NOW)) == 2
    rotate(tmp_path, now=NOW + 120, publish_before_sign_s=120)
    assert states(tmp_path, now=NOW)[old] == "signing"


def test_a_rotation_prunes_what_was_replaced_long_ago(tmp_path: Path, old: str) -> None:
    """Not what was replaced lately, and never within the life of its tokens, whatever --keep says."""
    second = rotate(tmp_path, now=NOW, publish_before_sign_s=0).key.kid
    third = rotate(tmp_path, now=NOW + OVERLAP_S - 1, publish_before_sign_s=0, keep_s=0)
    assert third.retired == ()
    done = rotate(tmp_path, now=NOW + OVERLAP_S, publish_before_sign_s=60, keep_s=0)
    assert done.retired == (old,)
    assert states(tmp_path, now=NOW + OVERLAP_S)[second] == "overlapping"
    assert not private_path(tmp_path, old).exists()
    assert public_path(tmp_path, old).exists()


def test_what_there_is_to_rotate(tmp_path: Path) -> None:
    """A missing folder, an empty one, and one whose keys have all ended: each says what to do."""
    with pytest.raises(ConfigurationError, match="relay keys new"):
        rotate(tmp_path / "none", now=NOW, publish_before_sign_s=0)
    with pytest.raises(ConfigurationError, match="relay keys new"):
        rotate(tmp_path, now=NOW, publish_before_sign_s=0)
    first = create_signing_key(tmp_path, signs_from=NOW)
    second = rotate(tmp_path, now=NOW + 1, publish_before_sign_s=0).key
    retire(tmp_path, first.kid, now=NOW + DAY)
    public_path(tmp_path, second.kid).unlink()
    private_path(tmp_path, second.kid).unlink()
    with pytest.raises(ConfigurationError, match="no key to replace"):
        rotate(tmp_path, now=NOW + DAY, publish_before_sign_s=0)


def test_a_key_is_retired_when_its_tokens_are_dead(tmp_path: Path, old: str) -> None:
    """Refused while it signs and for its tokens' life; afterwards its tokens are refused."""
    new = rotate(tmp_path, now=NOW, publish_before_sign_s=10).key.kid
    with pytest.raises(ConfigurationError, match=f"{old} signs"):
        retire(tmp_path, old, now=NOW)
    with pytest.raises(ConfigurationError, match=r"may still be valid\. Wait 82 s"):
        retire(tmp_path, old, now=NOW + 20)
    retire(tmp_path, old, now=NOW + 10 + OVERLAP_S)
    assert states(tmp_path, now=NOW + DAY) == {old: "retired", new: "signing"}
    assert set(load_keys(tmp_path, now=NOW + DAY).verify) == {new}
    with pytest.raises(ConfigurationError, match="already retired"):
        retire(tmp_path, old, now=NOW + DAY)


def test_a_waiting_key_can_be_taken_back(tmp_path: Path, old: str) -> None:
    """It has signed nothing yet."""
    new = rotate(tmp_path, now=NOW, publish_before_sign_s=10).key.kid
    retire(tmp_path, new, now=NOW + 1)
    assert states(tmp_path, now=NOW + DAY) == {old: "signing", new: "retired"}


def test_revoking_the_only_key_makes_another(tmp_path: Path, old: str) -> None:
    """It signs at once: there is nothing to wait for where no token can be issued."""
    new = revoke(tmp_path, old, now=NOW)
    assert new is not None
    assert states(tmp_path, now=NOW) == {old: "revoked", new: "signing"}
    assert not private_path(tmp_path, old).exists()


def test_revoking_the_signing_key_takes_the_next_one(tmp_path: Path, old: str) -> None:
    """It is known to the streams already; and the one that was replaced before never comes back."""
    second = rotate(tmp_path, now=NOW - 100, publish_before_sign_s=0).key.kid
    waiting = rotate(tmp_path, now=NOW, publish_before_sign_s=600).key.kid
    assert revoke(tmp_path, second, now=NOW + 1) == waiting
    assert states(tmp_path, now=NOW + 1) == {old: "overlapping", second: "revoked", waiting: "signing"}


def test_revoking_another_key_changes_nothing_else(tmp_path: Path, old: str) -> None:
    """A replaced one, a waiting one, a retired one: the one that signs goes on."""
    new = rotate(tmp_path, now=NOW, publish_before_sign_s=0).key.kid
    waiting = rotate(tmp_path, now=NOW + 1, publish_before_sign_s=600).key.kid
    assert revoke(tmp_path, old, now=NOW + 2) is None
    assert revoke(tmp_path, waiting, now=NOW + 2) is None
    assert states(tmp_path, now=NOW + 3) == {old: "revoked", new: "signing", waiting: "revoked"}
    with pytest.raises(ConfigurationError, match="already revoked"):
        revoke(tmp_path, old, now=NOW + 3)


def test_a_stream_s_copy_is_revoked_without_making_a_key(tmp_path: Path, old: str) -> None:
    """A folder of public keys can't sign before, and can't afterwards."""
    private_path(tmp_path, old).unlink()
    assert revoke(tmp_path, old, now=NOW) is None
    assert states(tmp_path, now=NOW) == {old: "revoked"}


def test_another_key_s_broken_file_keeps_no_key_alive(tmp_path: Path, old: str) -> None:
    """Revoking is for emergencies: it acts although the folder would not load."""
    (tmp_path / "x.private.pem").write_text("garbage")
    assert revoke(tmp_path, old, now=NOW) is not None
    assert not private_path(tmp_path, old).exists()


def test_a_key_that_can_not_be_read_says_how_to_refuse_it(tmp_path: Path, old: str) -> None:
    """By removing its two files."""
    public_path(tmp_path, old).write_text("garbage")
    with pytest.raises(ConfigurationError, match=f"remove {old}.private.pem and {old}.public.jwk.json"):
        revoke(tmp_path, old, now=NOW)


@pytest.mark.parametrize("kid", ["", "nope", "../keys", "\x1b[2J"])
def test_a_key_that_is_not_there(tmp_path: Path, old: str, kid: str) -> None:
    """One printable sentence with the names that there are."""
    for act in (retire, revoke):
        with pytest.raises(ConfigurationError, match=f"there is {old}") as refused:
            act(tmp_path, kid, now=time.time())
        assert str(refused.value).isprintable()
