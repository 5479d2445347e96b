"""The keys of a running relay follow their folder, and no mistake in it makes things worse."""

import asyncio
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.keys.files import create_signing_key, private_path, public_path
from relay.keys.rotation import retire, revoke, rotate
from relay.keys.watched_folder import KeyChange, WatchedKeys

NOW = 1_795_319_000.0


class Clock:
    """Unix seconds that stand still until they are set."""

    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        """Return the time."""
        return self.now


@pytest.fixture
def clock() -> Clock:
    """The relay's clock."""
    return Clock()


@pytest.fixture
def old(tmp_path: Path) -> str:
    """The kid of the folder's first key."""
    return create_signing_key(tmp_path, signs_from=NOW - 1000).kid


@pytest.fixture
def keys(tmp_path: Path, old: str, clock: Clock) -> WatchedKeys:
    """The folder's keys in a running relay."""
    keys = WatchedKeys(tmp_path, clock=clock)
    assert keys.signing_key().kid == old
    return keys


async def test_a_rotation_is_taken_over(tmp_path: Path, old: str, keys: WatchedKeys, clock: Clock) -> None:
    """First the new key verifies, then it signs, then the old one is refused; each is reported once."""
    assert await keys.refresh() is None
    new = rotate(tmp_path, now=NOW, publish_before_sign_s=120).key.kid
    assert await keys.refresh() == KeyChange(signing=old, published=(new,), dropped={})
    assert set(await keys.keys_for("")) == {old, new}
    clock.now = NOW + 119.9
    assert await keys.refresh() is None
    clock.now = NOW + 120
    assert await keys.refresh() == KeyChange(signing=new, published=(), dropped={})
    assert keys.signing_key().kid == new
    retire(tmp_path, old, now=NOW + 1000)
    assert await keys.refresh() == KeyChange(signing=new, published=(), dropped={old: "retired"})
    assert set(await keys.keys_for("")) == {new}
    assert (await keys.refresh(), keys.is_revoked(old)) == (None, False)


async def test_a_revocation_is_taken_over(tmp_path: Path, old: str, keys: WatchedKeys) -> None:
    """The key is refused, another one signs, and why the first is gone is known."""
    new = revoke(tmp_path, old, now=NOW)
    assert new is not None
    assert await keys.refresh() == KeyChange(signing=new, published=(new,), dropped={old: "revoked"})
    assert keys.is_revoked(old)


async def test_removed_files_refuse_a_key(tmp_path: Path, old: str, keys: WatchedKeys) -> None:
    """Somebody who removes both files by hand means it; without any key nothing is signed."""
    private_path(tmp_path, old).unlink()
    public_path(tmp_path, old).unlink()
    assert await keys.refresh() == KeyChange(signing=None, published=(), dropped={old: "removed"})
    with pytest.raises(UnavailableError) as refused:
        keys.signing_key()
    assert refused.value.reason is Reason.KEYS_UNAVAILABLE


async def test_a_broken_file_keeps_no_other_key_alive(tmp_path: Path, old: str, keys: WatchedKeys) -> None:
    """Its own key stays as it was; a revocation beside it acts all the same; and it is read when it is mended."""
    new = rotate(tmp_path, now=NOW, publish_before_sign_s=0).key.kid
    await keys.refresh()
    path = public_path(tmp_path, new)
    good = path.read_bytes()
    path.write_text("garbage")
    assert await keys.refresh() is None
    assert keys.signing_key().kid == new
    revoke(tmp_path, old, now=NOW)
    change = await keys.refresh()
    assert change is not None
    assert change.dropped == {old: "revoked"}
    path.write_bytes(good.replace(b'"signs_from"', b'"revoked_at": 1, "signs_from"'))
    change = await keys.refresh()
    assert change is not None
    assert change.dropped == {new: "revoked"}


async def test_a_new_key_that_is_broken_is_not_there(tmp_path: Path, old: str, keys: WatchedKeys) -> None:
    """What was never whole changes nothing."""
    (tmp_path / "x.private.pem").write_text("garbage")
    assert await keys.refresh() is None
    assert keys.signing_key().kid == old


async def test_a_folder_that_is_away_changes_nothing(tmp_path: Path, old: str, keys: WatchedKeys) -> None:
    """A mount that is gone for a moment must not end all sessions; and it is said once."""
    away = tmp_path.with_name("away")
    tmp_path.rename(away)  # noqa: ASYNC240  # a rename in a test's own folder
    assert await keys.refresh() is None
    assert await keys.refresh() is None
    assert keys.signing_key().kid == old
    away.rename(tmp_path)
    rotate(tmp_path, now=NOW, publish_before_sign_s=0)
    assert await keys.refresh() is not None


async def test_a_file_that_is_swapped_under_a_link_is_seen(tmp_path: Path, clock: Clock) -> None:
    """Secrets are often mounted as links to a folder that is replaced as a whole."""
    folders = [tmp_path / "one", tmp_path / "two"]
    kids = [create_signing_key(folder, signs_from=NOW).kid for folder in folders]
    mount = tmp_path / "mount"
    mount.symlink_to(folders[0])
    keys = WatchedKeys(mount, clock=clock)
    mount.unlink()
    mount.symlink_to(folders[1])
    assert await keys.refresh() == KeyChange(
        signing=kids[1], published=(kids[1],), dropped={kids[0]: "removed"}
    )


async def test_changes_during_the_start_are_seen(tmp_path: Path, old: str, clock: Clock) -> None:
    """A key that is revoked just after it was read is refused at the first look."""
    keys = WatchedKeys(tmp_path, clock=clock)
    revoke(tmp_path, old, now=NOW)
    change = await keys.refresh()
    assert change is not None
    assert change.dropped == {old: "revoked"}


async def test_watching_tells_each_change(tmp_path: Path, old: str, keys: WatchedKeys) -> None:
    """The watch looks by itself."""
    seen: asyncio.Queue[KeyChange] = asyncio.Queue()
    watch = asyncio.create_task(keys.watch(seen.put_nowait))
    new = revoke(tmp_path, old, now=NOW)
    async with asyncio.timeout(10):
        change = await seen.get()
    assert (change.signing, dict(change.dropped)) == (new, {old: "revoked"})
    watch.cancel()
    await asyncio.wait({watch})


def test_a_folder_without_a_key_is_refused_at_the_start(tmp_path: Path) -> None:
    """As by every other command."""
    with pytest.raises(ConfigurationError, match="relay keys new"):
        WatchedKeys(tmp_path)
    assert not list(tmp_path.iterdir())
