"""Which modules may read the wall clock: see "Clocks" in relay/core/README.md."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]

SIGNED = "signs times, or compares signed ones"
SHOWN = "shows the time, and the ages of times that are shown"
OTHERS = "compares its time with another machine's, or with times in a file"
WALL_CLOCK_USERS = {
    "audit/jsonl.py": SHOWN,
    "audit/watch.py": SHOWN,
    "bench/load/engine_path.py": SIGNED,
    "bench/load/servers.py": SIGNED,
    "bff/backend.py": OTHERS,
    "bff/me.py": SIGNED,
    "bff/refresh.py": SIGNED,
    "bff/renewal.py": SIGNED,
    "bff/routes.py": SIGNED,
    "bench/load/ticks.py": SHOWN,
    "cli/keys.py": OTHERS,
    "cli/token/inspect_token.py": SIGNED,
    "cli/token/mint.py": SIGNED,
    "cli/token/verify.py": SIGNED,
    "demo/backend.py": SIGNED,
    "demo/journal.py": SHOWN,
    "doctor/probes.py": OTHERS,
    "ingest/service.py": SHOWN,
    "ingest/socket.py": SHOWN,
    "ingest/values.py": SHOWN,
    "ingest/summaries.py": SHOWN,
    "issuer/routes.py": SIGNED,
    "keys/files.py": OTHERS,
    "keys/watched_folder.py": OTHERS,
    "limits/memory.py": "a library's interface wants it",
    "ops/publishers.py": SHOWN,
    "pages/visit.py": "marks a renewal in a URL, and ignores marks that are older or newer by 30 s",
    "server/nodes.py": SHOWN,
    "server/parts.py": SHOWN,
    "server/proxy.py": SIGNED,
    "server/public.py": SIGNED,
    "server/readings.py": SHOWN,
    "server/session_refresh.py": SIGNED,
    "state/sqlite_families.py": "moves the monotonic clock to Unix time once a boot",
    "engine/clock_offset.py": OTHERS,
    "engine/broker.py": "shows the delay of publications, which other machines have dated",
    "engine/nodes.py": "tells two processes of one audit log apart, by when they began",
    "engine/state.py": "compares the clocks before each claim, and forgets what has long been over",
    "engine/families.py": "the engine compares it with its own time before it gives a lease",
    "state/sqlite.py": "forgets what is over by both clocks",
    "stream/connection.py": SHOWN,
    "stream/fanout.py": OTHERS,
    "stream/gate.py": SIGNED,
    "stream/handshake.py": SHOWN,
    "stream/heartbeat.py": SHOWN,
    "stream/revoker.py": SIGNED,
    "stream/sent.py": SHOWN,
    "stream/terms.py": SHOWN,
    "verify/single_use.py": "forgets what is over by both clocks",
    "verify/verifier.py": SIGNED,
}
"""Modules that read `time.time`, and why they may. What lasts is measured with `time.monotonic`."""


def test_what_lasts_is_not_measured_on_the_wall_clock() -> None:
    """Only the listed modules read the wall clock, each for a reason that the rule allows."""
    assert {
        str(file.relative_to(ROOT / "relay"))
        for file in (ROOT / "relay").rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Attribute)
        and node.attr in {"time", "time_ns"}
        and isinstance(node.value, ast.Name)
        and node.value.id == "time"
    } == set(WALL_CLOCK_USERS)
