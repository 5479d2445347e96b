"""What clients take for the server's clock, frame by frame: one table for the Python and the browser client."""

from typing import Any, NamedTuple

T0 = 1_790_000_000_000
HOUR = 3_600_000


class Step(NamedTuple):
    """After `wait_ms` a frame comes, and the server's clock is taken to be `T0 + expected`."""

    wait_ms: int
    frame: dict[str, Any]
    expected: int


def welcome(at: int) -> dict[str, Any]:
    return {
        "type": "welcome",
        "protocol": "relay.v1",
        "connection": "c",
        "ts": T0 + at,
        "expires_at": T0 + 10 * HOUR,
        "heartbeat_ms": 600_000,
        "limits": {"frames_per_s": 10},
    }


def heartbeat(at: int) -> dict[str, Any]:
    return {"type": "heartbeat", "ts": T0 + at}


def value(kind: str, seq: int, at: int) -> dict[str, Any]:
    epoch = {"epoch": "e1"} if kind == "snapshot" else {}
    return {"type": kind, "channel": "prices.BTC-USD", "seq": seq, "ts": T0 + at, "data": seq, **epoch}


SCHEDULES: dict[str, list[Step]] = {
    "a faster frame makes it better": [
        Step(0, welcome(0), 0),
        Step(5000, heartbeat(5040), 5040),
    ],
    "a slow frame changes nothing": [
        Step(0, welcome(0), 0),
        Step(5000, heartbeat(5000), 5000),
        Step(20_000, heartbeat(10_000), 25_000),
        Step(10, value("snapshot", 1, 11_000), 25_010),
        Step(10, value("update", 2, 12_000), 25_020),
    ],
    "an old value changes nothing": [
        Step(0, welcome(0), 0),
        Step(10, value("snapshot", 4, -HOUR), 10),
        Step(10, value("update", 5, 20), 20),
        Step(10, value("snapshot", 6, -HOUR), 30),
    ],
    "an hour ahead and right again, seen by heartbeats": [
        Step(0, welcome(0), 0),
        Step(5000, heartbeat(HOUR + 5000), HOUR + 5000),
        Step(5000, heartbeat(10_000), 10_000),
        Step(5000, heartbeat(15_000), 15_000),
    ],
    "an hour ahead and right again, seen by prices": [
        Step(0, welcome(0), 0),
        Step(100, value("snapshot", 1, 100), 100),
        Step(100, value("update", 2, HOUR + 200), HOUR + 200),
        Step(100, value("update", 3, 300), 300),
        Step(100, value("update", 4, 400), 400),
    ],
    "an hour back for good": [
        Step(0, welcome(0), 0),
        Step(5000, heartbeat(5000), 5000),
        Step(5000, heartbeat(10_000 - HOUR), 10_000 - HOUR),
        Step(5000, heartbeat(15_000 - HOUR), 15_000 - HOUR),
    ],
    "ahead from the beginning, then corrected": [
        Step(0, welcome(HOUR), HOUR),
        Step(5000, heartbeat(5000), 5000),
    ],
    "another server": [
        Step(0, welcome(0), 0),
        Step(5000, welcome(-2 * HOUR), -2 * HOUR),
    ],
}
