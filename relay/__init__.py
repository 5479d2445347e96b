"""A WebSocket relay with scoped tokens: live prices for thousands of browsers, and no access token in any of them.

This is the map of the code: every room with one line, and two walks to read it by. Public API is `relay.client`,
`relay.verify` and `relay.pages`; everything else may change. Reference texts are in the rooms' README.md;
tests/README.md has recipes.

The core is pure: no socket, no clock, no event loop.

    core/            tokens, scope, channels, hub, wire protocol, close codes, reasons, audit events

What the process is made of:

    settings/        relay.toml and RELAY_* variables, checked
    server/          the composition root: start and stop, the parts and their wiring, both HTTP applications, workers

What browsers and other servers reach:

    issuer/          POST /auth/ws-token: a session comes in, a scoped token goes out; the grants
    stream/          WebSockets and event streams: gate, connections, registry, fan-out, heartbeat, drain
    bff/             log-in, refresh, log-out, the user and the API proxy, against the backend
    ingest/          publishers: HTTP requests and a WebSocket
    ops/             operators: routes and page of the internal listener

What they work with:

    sessions/        who is behind a cookie: the port and its verifiers
    keys/            signing keys and their life, JWKS, keys of publishers and operators
    state/           used tokens and revocations: the port and SQLite
    broker/          numbers publications and delivers them to each node's hub: the port and the memory adapter
    limits/          how often a caller may do something: the port and the memory adapter
    engine/          Redis or Valkey for several nodes: connection, scripts, adapters of the ports
    audit/           the audit log: write, chain, verify; index/ answers questions, report/ is a page
    metrics/         numbers of a running relay, for Prometheus and the ops page
    net/             for all listeners: addresses, admission queue, unauthenticated connections, TLS, HTTP client
    web/             for HTTP only: server, bounds of requests, bodies, answers, cookies, CSRF, headers
    group_commit.py  one disk write for many waiting callers: the state store and the audit log use it
    random_ids.py    random bits in blocks, for ids that are made thousands of times a second

What others use:

    browser/         the npm package: the JavaScript client, React hooks, types
    client/          the Python client (public)
    pages/           pages of a Python application behind the log-in (public)
    verify/          scoped tokens for other services (public)

Commands and tools:

    cli/             the command line, one file per command
    demo/            `relay demo`: a backend, a market and a page
    doctor/          `relay doctor`: what is allowed but unwise
    bench/           `relay bench`: load, benchmarks, reports
    recordings/      files of recorded market data

One tick, from the publisher to the browsers:

    ingest/routes.py:_publish_one             POST /v1/publish: read the body
    ingest/service.py:Ingest.publish          check the quota; core/publications.py:parse_draft checks the form
    ingest/service.py:Ingest.submit           check the channel against the key, and hand the draft to the broker
    broker/memory.py:MemoryBroker.publish     make a publication, and hand it to the hub of this node
    core/sequencer.py:Sequencer.number        give it its seq, or drop it as stale or repeated
    stream/fanout.py:encode                   makes one WebSocket frame of a message
    stream/fanout.py:Fanout._turn             owns the hub, and lets it write in short turns of the event loop
    core/hub.py:Hub.publish                   queue the value at the interval groups of its channel
    core/hub.py:Hub.flush                     write the same bytes to each subscriber that is ready
    core/channels.py:Channel.accept           keep the value as the last one, or in the history
    core/channels.py:Group.queue_value        encode it once for a transport
    core/batch.py:share                       let readers of the same channels share one message
    stream/compression.py:Compressor          compresses it once for all of them
    core/subscribers.py:Sink                  the outgoing side of a connection
    core/subscribers.py:Backlog               what a slow subscriber still has to get
    stream/outgoing.py:Outgoing               the sink: one `write` of the socket's transport

One token, from the session to the answer of the issuer:

    web/endpoints.py:DirectRoutes             give a request to its endpoint without the router
    issuer/routes.py:issuer_routes            POST /auth/ws-token
    issuer/routes.py:_authenticated           CSRF (web/csrf.py:check_csrf), limits, and the session
    issuer/routes.py:_issued                  read what is asked for
    issuer/service.py:Issuer.authenticate     ask the verifier, and the state store for revocations
    issuer/service.py:Issuer.issue            grant, mint, record; without a record there is no token
    sessions/base.py:SessionVerifier.verify   who is behind the credential?
    sessions/signed.py:SignedVerifier.verify  one verifier: a JWT in a cookie
    issuer/policy.py:Grants.decide            cut the request down to the grants of the session's roles
    core/tokens.py:mint                       sign the scoped token
    audit/jsonl.py:JsonlAuditor.record        wait until the record is in the file

One token, from the handshake to the first price:

    stream/listener.py:listen                 the library's server, with the relay's limits
    stream/connection.py:StreamConnection     a new connection; its first bytes wait in the accept queue
    stream/lifecycle.py:next_phase            the phases of a connection, and what leads from one to the next
    stream/service.py:Stream._process_request a handshake was read: by `usual_request`, or by the library
    stream/service.py:Stream._handle          the handshake is answered; the token may still come, as the first frame
    stream/service.py:Stream._serve           register the connection, and run its protocol until it ends
    stream/handshake.py:read_handshake        find the token, the channels and the interval in a handshake
    stream/sse_handshake.py:SseHandshake      the same for an event stream, which `_begin_events` of the service begins
    stream/gate.py:Gate.inspect               the checks before the token
    stream/gate.py:Gate.redeem                the checks of the token; as the last step, use it up
    core/tokens.py:verify                     signature and claims
    core/revocations.py:token_is_revoked      is its session, its user or the token itself revoked?
    state/base.py:State.claim                 single use: the port
    state/sqlite.py:SqliteState.claim         single use: one atomic insert
    core/protocol.py:ClientProtocol.open      the welcome, and the first subscriptions
    core/hub.py:Hub.subscribe                 acknowledgement and snapshots; then the ticks of the first walk
"""

__version__ = "0.1.0"
