"""What a running relay is made of: concrete adapters, wired to each other as the settings say.

The only module that names them. Nothing listens yet; `relay.app` starts and stops what is made here.
"""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from relay.audit.jsonl import JsonlAuditor
from relay.bff.backend import Backend
from relay.broker.memory import MemoryBroker
from relay.config import Settings
from relay.core.errors import ConfigurationError
from relay.core.tokens import SigningKey
from relay.ingest.service import Ingest
from relay.issuer.service import Issuer
from relay.keys.bearer import check_bearer
from relay.keys.files import KeyRing, load_keys
from relay.sessions.signed import SignedVerifier
from relay.state.sqlite import SqliteState
from relay.stream.addresses import Waiting
from relay.stream.fanout import Fanout
from relay.stream.gate import Gate
from relay.stream.service import Stream
from relay.turnstile import Turnstile
from relay.wiring import (
    feed_options,
    gate_options,
    issuer_options,
    policy,
    publisher_terms,
    signed_options,
    stream_options,
)


@dataclass(slots=True, kw_only=True)
class Parts:
    """The parts of one relay, alive until `make_parts` ends."""

    settings: Settings
    keys: KeyRing
    state: SqliteState
    auditor: JsonlAuditor
    fanout: Fanout
    stream: Stream
    issuer: Issuer
    ingest: Ingest
    backend: Backend | None
    turnstile: Turnstile
    stopping: bool = False


def check(settings: Settings) -> tuple[KeyRing, SigningKey, SignedVerifier]:
    """Check what the settings alone can't tell: that there are keys, and that they fit. Nothing is started or written.

    Raises:
        ConfigurationError: with one sentence about the first that does not.
    """
    keys = load_keys(settings.tokens.keys_dir)
    if keys.signing is None:
        raise ConfigurationError(
            f"tokens.keys_dir: {settings.tokens.keys_dir} has no private key; make one with "
            f"`relay keys new --dir {settings.tokens.keys_dir}`."
        )
    return keys, keys.signing, SignedVerifier(signed_options(settings))


@contextlib.asynccontextmanager
async def make_parts(settings: Settings) -> AsyncIterator[Parts]:
    """Make and wire everything but the listeners, and write out what waits at the end."""
    keys, signing, verifier = check(settings)
    state = SqliteState.open(settings.engine.state_path)
    try:
        auditor = JsonlAuditor.open(settings.audit.path, node=socket.gethostname())
        try:
            fanout = Fanout(feed_options(settings))
            broker = MemoryBroker(max_channels=settings.limits.channels)
            broker.attach(fanout.hub.publish)
            backend = _backend(settings)
            turnstile = Turnstile()
            yield Parts(
                settings=settings,
                keys=keys,
                state=state,
                auditor=auditor,
                fanout=fanout,
                stream=_stream(settings, keys, fanout, state, auditor, turnstile),
                issuer=Issuer(
                    issuer_options(settings),
                    policy=policy(settings),
                    verifier=verifier,
                    state=state,
                    auditor=auditor,
                    key=signing,
                ),
                ingest=Ingest(
                    publisher_terms(settings),
                    broker=broker,
                    auditor=auditor,
                    check_key=check_bearer,
                ),
                backend=backend,
                turnstile=turnstile,
            )
            if backend is not None:
                await backend.aclose()
        finally:
            await auditor.aclose()
    finally:
        await state.aclose()


def _stream(
    settings: Settings,
    keys: KeyRing,
    fanout: Fanout,
    state: SqliteState,
    auditor: JsonlAuditor,
    turnstile: Turnstile,
) -> Stream:
    def make_gate(waiting: Waiting, draining: Callable[[], bool]) -> Gate:
        return Gate(gate_options(settings), keys=keys.verify, state=state, waiting=waiting, draining=draining)

    return Stream(
        stream_options(settings),
        make_gate=make_gate,
        waiting=Waiting(limit=settings.limits.unauthenticated_per_address),
        fanout=fanout,
        state=state,
        auditor=auditor,
        turnstile=turnstile,
    )


def _backend(settings: Settings) -> Backend | None:
    bff = settings.bff
    if bff.backend is None:
        return None
    return Backend(origin=bff.backend, login_path=bff.login_path, timeout_s=bff.timeout_s)


# what belongs to no shell
