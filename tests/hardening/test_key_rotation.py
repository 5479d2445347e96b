"""Key rotation in a running relay: nobody is refused for it, and a key that is retired or revoked opens nothing."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.core.tokens import SigningKey
from relay.keys.lifecycle import OVERLAP_S
from relay.keys.rotation import retire, revoke, rotate
from tests.support.forged_tokens import claims, issuer_key
from tests.support.http_client import http_client
from tests.support.jws_forgery import forge, header_of
from tests.support.raw_http import bearing, fresh, knock, upgrade
from tests.support.relay_process import Relay, running
from tests.support.shared_relay import assert_quiet

WORKERS = 8


def token_by(relay: Relay, key: SigningKey) -> str:
    """Return a token that would be accepted if `key` were a key of the relay's."""
    return forge({"typ": "scoped+jwt", "alg": "EdDSA", "kid": key.kid}, claims(relay), key.key)


async def status(relay: Relay, token: str) -> int:
    """Return how a handshake with this token is answered."""
    return (await knock(relay, fields=[*upgrade(relay), bearing(token)])).status


async def published(relay: Relay) -> set[str]:
    """Return the kids that the relay publishes."""
    async with http_client() as client:
        answer = await client.get(f"{relay.url}/.well-known/jwks.json")
    return {key["kid"] for key in answer.json()["keys"]}


async def eventually(holds: Callable[[], Any]) -> None:
    """Wait until something that the relay takes over from its folder holds."""
    async with asyncio.timeout(10):
        while not await holds():  # noqa: ASYNC110  # nobody tells when the folder was looked at
            await asyncio.sleep(0.02)


class Crowd:
    """Browsers that take tokens and connect without a break, and what became of each."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.statuses: list[int] = []
        self.kids: list[str] = []
        self._enough = False

    async def _one(self) -> None:
        while not self._enough:
            token = await fresh(self.relay)
            self.kids.append(header_of(token)["kid"])
            self.statuses.append(await status(self.relay, token))

    async def __aenter__(self) -> "Crowd":
        self._tasks = [asyncio.create_task(self._one()) for _ in range(WORKERS)]
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._enough = True
        await asyncio.gather(*self._tasks)

    async def used(self, kid: str, *, times: int = 3 * WORKERS) -> None:
        """Wait until so many more tokens were signed with a key."""
        before = self.kids.count(kid)

        async def enough() -> bool:
            return self.kids.count(kid) >= before + times

        await eventually(enough)


async def test_rotation_under_load_refuses_nobody(tmp_path: Path) -> None:
    """Two rotations and two retirements while eight browsers connect without a break: each is let in."""
    with running(tmp_path) as relay:
        folder = relay.folder / "keys"
        keys = [issuer_key(relay)]
        async with Crowd(relay) as crowd:
            await crowd.used(keys[0].kid)
            for _ in range(2):
                keys.append(rotate(folder, now=time.time(), publish_before_sign_s=1).key)
                old, new = keys[-2:]
                await crowd.used(new.kid)
                # as if the overlap were over: whatever the crowd still holds, the new key has signed
                retire(folder, old.kid, now=time.time() + OVERLAP_S + 1)
                await relay.recorded(
                    lambda one, kid=old.kid: dropped(one).get(kid) == "retired"  # type: ignore[misc]  # the default
                )
                await crowd.used(new.kid)
        assert set(crowd.statuses) == {101}
        assert set(crowd.kids) == {key.kid for key in keys}
        for key in keys[:2]:
            assert await status(relay, token_by(relay, key)) == 401
        assert await status(relay, token_by(relay, keys[2])) == 101
        await relay.audited("connect.denied", reason="token_key_unknown")
        assert await published(relay) == {keys[2].kid}
        assert_quiet(relay)


def dropped(record: dict[str, Any]) -> dict[str, str]:
    """Return the keys that a record says are refused from then on, and why."""
    if record["event"]["action"] != "key.rotated":
        return {}
    found: dict[str, str] = record["relay"]["keys"]["dropped"]
    return found


async def test_a_key_is_published_before_it_signs(tmp_path: Path) -> None:
    """It is in the JWKS and opens the gate, while tokens are still signed with the old one."""
    with running(tmp_path) as relay:
        old = issuer_key(relay)
        new = rotate(relay.folder / "keys", now=time.time(), publish_before_sign_s=600).key

        async def both() -> bool:
            return await published(relay) == {old.kid, new.kid}

        await eventually(both)
        assert await status(relay, token_by(relay, new)) == 101
        assert header_of(await relay.token())["kid"] == old.kid
        record = await relay.audited("key.rotated")
        assert record["relay"]["keys"] == {"signing": old.kid, "published": [new.kid], "dropped": {}}


async def test_a_revoked_key_ends_what_it_opened(tmp_path: Path) -> None:
    """Its tokens are refused, its connections are closed so that they reconnect, and other connections stay."""
    with running(tmp_path) as relay:
        folder = relay.folder / "keys"
        old = issuer_key(relay)
        new = rotate(folder, now=time.time(), publish_before_sign_s=0).key
        async with relay.connect(token_by(relay, old)) as stolen:

            async def rotated() -> bool:
                return bool(header_of(await relay.token())["kid"] == new.kid)

            await eventually(rotated)
            async with relay.connect(await relay.token()) as good:
                revoke(folder, old.kid, now=time.time())
                assert (await stolen.closed())[0] == 4001
                await good.send(type="ping", id=1)
                while (await good.next())["type"] != "pong":
                    pass
        assert await status(relay, token_by(relay, old)) == 401
        record = await relay.recorded(lambda one: dropped(one).get(old.kid) == "revoked")
        assert record["relay"]["connections"] == 1
        await relay.audited("connection.closed", reason="key_revoked")
        await relay.audited("connect.denied", reason="token_key_unknown")
        assert_quiet(relay)


async def test_revoking_the_only_key_leaves_an_issuer_that_issues(tmp_path: Path) -> None:
    """Another key signs within a second, and its tokens open the gate."""
    with running(tmp_path) as relay:
        old = issuer_key(relay)
        new = revoke(relay.folder / "keys", old.kid, now=time.time())

        async def replaced() -> bool:
            return await published(relay) == {new}

        await eventually(replaced)
        token = await relay.token()
        assert header_of(token)["kid"] == new
        assert await status(relay, token) == 101


@pytest.mark.parametrize("how", ["retired", "revoked"])
async def test_a_restart_brings_no_ended_key_back(tmp_path: Path, how: str) -> None:
    """What was refused before is refused afterwards."""
    with running(tmp_path) as relay:
        folder = relay.folder / "keys"
        old = issuer_key(relay)
        rotate(folder, now=time.time(), publish_before_sign_s=0)
        if how == "retired":
            retire(folder, old.kid, now=time.time() + OVERLAP_S + 1)
        else:
            revoke(folder, old.kid, now=time.time())
        relay.stop()
        relay.start()
        assert await status(relay, token_by(relay, old)) == 401
        assert await status(relay, await relay.token()) == 101
