"""The parts of a running relay: concrete adapters, wired to each other as the settings say.

No other module names the adapters. Nothing listens yet: `relay.server.run` starts and stops the listeners.
"""

import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from relay import __version__
from relay.audit.anomalies import ClientIdentity
from relay.audit.chain import Link
from relay.audit.files import process_number
from relay.audit.jsonl import JsonlAuditor
from relay.audit.watch import WatchedAuditor, show_event, show_refusal
from relay.bff.backend import Backend
from relay.bff.proxy.access import AccessTokens
from relay.bff.proxy.endpoint import ProxyEndpoint
from relay.bff.proxy.open_calls import OpenCalls
from relay.bff.refresh import Refresher
from relay.broker.memory import MemoryBroker
from relay.core.counters import DurationHistogram
from relay.core.errors import ConfigurationError, Reason, UnavailableError
from relay.engine.heads import AuditPosition, kept_s, place_of
from relay.ingest.service import Ingest
from relay.ingest.socket import IngestSockets
from relay.issuer.service import Issuer
from relay.keys.api_keys import check_bearer
from relay.keys.sources import FetchedKeys, KeySource
from relay.keys.watched_folder import WatchedKeys
from relay.limits.memory import MemoryCounts
from relay.limits.requests import RateLimits
from relay.metrics.tally import Tally
from relay.net.admission import FIRST_READS_PER_TURN, AdmissionQueue, LoadShedder
from relay.net.unauthenticated import UnauthenticatedConnections
from relay.ops.audit_questions import AuditQuestions
from relay.ops.operators import Operators
from relay.server.engine import Engine, engine_options, open_engine
from relay.server.keys import key_source
from relay.server.options import (
    audit_copy,
    audit_log_options,
    backend_options,
    channel_options,
    csrf_options,
    gate_options,
    http_bounds,
    issuer_options,
    operator_terms,
    policy,
    publisher_terms,
    rates,
    ref_key,
    revocations_kept_s,
    stream_bounds,
    stream_options,
    stream_patterns,
    unauthenticated,
)
from relay.server.peers import Peers
from relay.server.process_roles import Role
from relay.server.proxy import access_tokens, make_proxy
from relay.server.session_refresh import make_refresher
from relay.server.session_verifier import session_verifier
from relay.server.worker import Worker
from relay.sessions.base import SessionVerifier
from relay.sessions.recent_sessions import RecentSessions
from relay.settings.load import Settings
from relay.state.base import State
from relay.state.families import Families
from relay.state.sqlite import SqliteState, read_head
from relay.state.sqlite_families import SqliteFamilies
from relay.stream.fanout import Fanout
from relay.stream.gate import Gate
from relay.stream.revoker import Revoker
from relay.stream.service import Stream
from relay.web.client_identity import client_reader
from relay.web.csrf import CsrfCheck

if TYPE_CHECKING:
    from relay.engine.broker import EngineBroker
    from relay.engine.state import EngineState

log = structlog.get_logger("relay")


@dataclass(slots=True, kw_only=True)
class Parts:
    """The parts of one relay, alive until `make_parts` ends."""

    settings: Settings
    role: Role
    keys: WatchedKeys | FetchedKeys
    verifier: SessionVerifier
    state: "SqliteState | EngineState"
    engine: Engine | None
    audit_log: JsonlAuditor
    tally: Tally
    auditor: WatchedAuditor
    broker: "MemoryBroker | EngineBroker"
    fanout: Fanout
    stream: Stream
    revoker: Revoker
    issuer: Issuer
    ingest: Ingest
    ingest_sockets: IngestSockets
    operators: Operators
    questions: AuditQuestions
    csrf: CsrfCheck
    http_unauthenticated: UnauthenticatedConnections
    internal_unauthenticated: UnauthenticatedConnections
    backend: Backend | None
    tokens: AccessTokens
    refresher: Refresher | None
    open_calls: OpenCalls
    proxy: ProxyEndpoint | None
    admission_queue: AdmissionQueue
    accept_queue: AdmissionQueue
    shedder: LoadShedder
    peers: Peers | None
    """The other workers of the supervisor, if there is one."""
    identity: Mapping[str, Any]
    """Who this node is, for operators and the other nodes."""
    started_at: float
    loop_lag: DurationHistogram = field(default_factory=DurationHistogram)
    stopping: bool = False


def check(settings: Settings, role: Role) -> tuple[WatchedKeys | FetchedKeys, SessionVerifier]:
    """Return the keys and the session verifier of a process of this role. Nothing is started or written.

    Raises:
        ConfigurationError: if a key is missing or does not fit, in one sentence.
    """
    engine_options(settings)
    return key_source(settings, role), session_verifier(settings)


@contextlib.asynccontextmanager
async def make_parts(
    settings: Settings, role: Role = Role.ALL, *, worker: Worker | None = None
) -> AsyncIterator[Parts]:
    """Make and wire everything but the listeners. At the end, write out what waits, and close the parts.

    Other processes of this machine write the audit log of a `worker` too, each its own chain.

    Raises:
        ConfigurationError: see `check`; or a file can't be used.
    """
    async with contextlib.AsyncExitStack() as stack:
        # The stack closes the parts in reverse order: the audit log before the state, which keeps the log's head.
        keys, verifier = check(settings, role)
        state_file = SqliteState.open(settings.engine.state_path)
        stack.push_async_callback(state_file.aclose)
        engine = await stack.enter_async_context(
            open_engine(settings, known=state_file.revocations, channel_options=channel_options(settings))
        )
        state = state_file if engine is None else engine.state
        if isinstance(keys, FetchedKeys):
            stack.push_async_callback(keys.aclose)
        stack.push_async_callback(verifier.aclose)
        client_identity = ClientIdentity(ref_key(settings))
        audit_log = _open_audit_log(settings, state_file, engine, is_worker=worker is not None)
        tally = Tally()
        auditor = WatchedAuditor(
            audit_log,
            client_identity=client_identity,
            denials=settings.limits.denials_recorded,
            subscriptions=settings.limits.subscriptions_recorded,
            observers=[tally.add, show_event] if settings.log.level == "debug" else [tally.add],
            recorded_denials=[show_refusal],
        )
        stack.push_async_callback(auditor.aclose)
        peers = None if worker is None else Peers(worker.path, process_number(audit_log.path))
        identity = _identity(audit_log, role, peers)
        if (
            engine is not None
        ):  # before it reads the log of publications: the others may have to write it differently
            engine.nodes.figures = lambda: identity
            await _join(engine, settings, audit_log)
            stack.push_async_callback(engine.nodes.end)
        fanout = Fanout(channel_options(settings))
        broker = MemoryBroker(max_channels=settings.limits.channels) if engine is None else engine.broker
        await fanout.connect(broker)
        backend = _backend(settings)
        if backend is not None:
            stack.push_async_callback(backend.aclose)
        recent_sessions = RecentSessions()
        admission_queue, accept_queue = AdmissionQueue(), AdmissionQueue(FIRST_READS_PER_TURN)
        stream = _stream(settings, keys, fanout, state, engine, auditor, admission_queue, accept_queue)
        ingest = Ingest(
            publisher_terms(settings),
            broker=broker,
            auditor=auditor,
            check_key=check_bearer,
            publications_recorded=settings.limits.publications_recorded,
        )
        stack.callback(ingest.summary.end_minute)
        open_calls = OpenCalls(per_session=settings.bff.proxy.calls_per_session)
        families: Families | None = None
        if backend is not None and settings.bff.fields.refresh_token:
            families = engine.families if engine is not None else _families_of_file(settings, stack)
        revoker = Revoker(
            state=state,
            families=families,
            registry=stream.registry,
            end_calls=open_calls.end,
            recent_sessions_of=recent_sessions.of,
            newest_login_of=recent_sessions.newest_login,
            forget=verifier.forget,
            auditor=auditor,
            keep_s=revocations_kept_s(settings),
        )
        stack.push_async_callback(revoker.aclose)
        if engine is not None:
            engine.state.on_revoked = revoker.end_here
            engine.state.claims.connect(stream.registry.places, stream.registry.end_replaced)
            engine.quotas.quotas = lambda: ingest.quotas
            engine.quotas.start()
        issuer = Issuer(
            issuer_options(settings),
            policy=policy(settings),
            limits=RateLimits(
                rates(settings),
                counts=lambda _name, rate: MemoryCounts(rate),
                shared=None if engine is None else engine.limits.counts,
            ),
            client_identity=client_identity,
            verifier=verifier,
            recent_sessions=recent_sessions,
            state=state,
            auditor=auditor,
            key=keys.signing_key,
            check_revocations=(lambda: None) if engine is None else engine.health.check_revocations,
        )
        refresher = None
        if backend is not None and families is not None:
            refresher = make_refresher(
                settings,
                families=families,
                backend=backend,
                issuer=issuer,
                revoker=revoker,
                auditor=auditor,
            )
            stack.push_async_callback(refresher.aclose)
        csrf = CsrfCheck(csrf_options(settings))
        tokens = access_tokens(settings, issuer, refresher, csrf)
        proxy = make_proxy(
            settings, issuer=issuer, tokens=tokens, auditor=auditor, csrf=csrf, open_calls=open_calls
        )
        if proxy is not None:
            stack.push_async_callback(proxy.aclose)
        questions = AuditQuestions(settings.audit.path, memory_mb=settings.audit.index_memory_mb)
        stack.callback(questions.close)
        yield Parts(
            settings=settings,
            role=role,
            keys=keys,
            verifier=verifier,
            state=state,
            engine=engine,
            audit_log=audit_log,
            tally=tally,
            auditor=auditor,
            broker=broker,
            fanout=fanout,
            stream=stream,
            revoker=revoker,
            issuer=issuer,
            ingest=ingest,
            ingest_sockets=IngestSockets(ingest, client_reader(()), streams=stream_patterns(settings)),
            operators=Operators(operator_terms(settings), auditor=auditor, client_of=client_reader(())),
            questions=questions,
            csrf=csrf,
            http_unauthenticated=unauthenticated(
                settings, http_bounds(settings, tls=settings.listen.tls is not None)
            ),
            internal_unauthenticated=unauthenticated(
                settings, http_bounds(settings, tls=settings.listen.internal_tls is not None)
            ),
            backend=backend,
            tokens=tokens,
            refresher=refresher,
            open_calls=open_calls,
            proxy=proxy,
            admission_queue=admission_queue,
            accept_queue=accept_queue,
            shedder=LoadShedder(accept_queue=accept_queue, admission_queue=admission_queue),
            peers=peers,
            identity=identity,
            started_at=identity["started_at"],
        )


def _families_of_file(settings: Settings, stack: contextlib.AsyncExitStack) -> Families:
    families = SqliteFamilies.open(settings.engine.state_path)
    stack.push_async_callback(families.aclose)
    return families


def _identity(audit_log: JsonlAuditor, role: Role, peers: Peers | None) -> dict[str, Any]:
    return {
        "node": audit_log.node,
        "machine": socket.gethostname(),
        "worker": None if peers is None else peers.number,
        "role": role.value,
        "release": __version__,
        "started_at": time.time(),
    }


async def _join(engine: Engine, settings: Settings, audit_log: JsonlAuditor) -> None:
    """Show this node to the others, and the engine how far its audit log is."""
    audit = AuditPosition(
        opened=audit_log.opened, place=place_of(audit_log.path), keep_s=kept_s(settings.audit.keep_days)
    )
    try:
        await engine.nodes.open(audit)
    except UnavailableError as error:
        raise ConfigurationError(f"engine.url: {error}") from None


def _open_audit_log(
    settings: Settings, state: SqliteState, engine: Engine | None, *, is_worker: bool
) -> JsonlAuditor:
    async def keep_head(head: Link) -> None:
        if engine is not None:
            await engine.nodes.keep_head(head)
        await state.keep_head(audit_log.path, head.writer, head.seq, head.hash)

    audit_log = JsonlAuditor.open(
        settings.audit.path,
        node=socket.gethostname(),
        is_shared=is_worker,
        options=replace(audit_log_options(settings), copy=audit_copy(settings)),
        keep_head=keep_head,
    )
    path = audit_log.path
    known = read_head(settings.engine.state_path, path)  # the log's task has kept no newer head yet
    if known is not None and (known[0] != audit_log.head.writer or known[1] > audit_log.head.seq):
        log.error(
            "the audit log is not the one that the state store knows: it was replaced or cut off",
            path=str(path),
            known=str(Link(*known)),
        )
    return audit_log


def _stream(
    settings: Settings,
    keys: KeySource,
    fanout: Fanout,
    state: State,
    engine: Engine | None,
    auditor: WatchedAuditor,
    admission_queue: AdmissionQueue,
    accept_queue: AdmissionQueue,
) -> Stream:
    def make_gate(counts: UnauthenticatedConnections, closed: Callable[[], Reason | None]) -> Gate:
        if engine is not None:
            closed = partial(_closed_or_blind, closed, engine)
        return Gate(gate_options(settings), keys=keys, state=state, unauthenticated=counts, closed=closed)

    return Stream(
        stream_options(settings),
        make_gate=make_gate,
        unauthenticated=unauthenticated(settings, stream_bounds(settings)),
        fanout=fanout,
        auditor=auditor,
        admission_queue=admission_queue,
        accept_queue=accept_queue,
        places=None if engine is None else engine.state.claims,
    )


def _closed_or_blind(closed: Callable[[], Reason | None], engine: Engine) -> Reason | None:
    """Return why no connection is admitted: a node that may not know of a revocation admits none."""
    return closed() or engine.health.gate_closed


def _backend(settings: Settings) -> Backend | None:
    options = backend_options(settings)
    return None if options is None else Backend(options)
