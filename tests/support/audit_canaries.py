"""A log in which each text that others can write is one that a page might run, load or be changed by."""

from pathlib import Path
from typing import Any

from relay.audit.chain import Link, seal

TEXTS = (
    "<script>document.title='taken'</script>",
    '"><img src=x onerror="document.title=\'taken\'">',
    "' onmouseover='document.title=1",
    "javascript:document.title='taken'",
    "</style><style>* { display: none }</style>",
    "</title></svg><!-- ",
    "&lt;b&gt; \u202e\u2066drowssap\x1b[2J",
)
AT = "2026-11-26T10:00:00.000Z"


def write_canaries(folder: Path) -> list[Path]:
    """Write a log of two chains with gaps, a line that is no record, and each kind of record that a report shows."""
    paths = [folder / "audit.1.jsonl", folder / "audit.2.jsonl"]
    for path, writer in zip(paths, ("1" * 32, "2" * 32), strict=True):
        head, lines = Link.before_first(writer), []
        for number, text in enumerate(TEXTS):
            for record in _records(text, f"{writer[0]}-{number}"):
                line, head = seal({"@timestamp": AT, **record}, head)
                lines.append(line + b"\n")
        path.write_bytes(b"".join(lines))
    return paths


def _records(text: str, name: str) -> list[dict[str, Any]]:
    """Return the records with this text wherever one can be. `name` is of the token."""
    common = {
        "user": {"id": text},
        "client": {"ip": text},
        "user_agent": {"original": text},
        "url": {"path": text},
    }
    operator, token = {"id": text}, {"jti": name, "channels": [text], "exp": 4_000_000_000}

    def record(action: str, reason: str = "", outcome: str = "success", **relay: Any) -> dict[str, Any]:
        event = {"action": action, "outcome": outcome, "reason": reason}
        return common | {"event": event, "relay": {"endpoint": text, **relay}}

    rejected = [{"channel": text, "reason": text}]
    keys = {"signing": text, "published": [text], "dropped": {text: text}}
    return [
        record("token.issued", token=token, session={"ref": text, "roles": [text]}, rejected=rejected),
        record("connect.accepted", token=token, connection={"id": name}, channels=[text], count=1),
        record("connect.denied", text, "failure", token=token, anomalies=["replay", text]),
        record("denials.aggregated", "", "failure", denied={text: {text: 2}}, count=2),
        record("operator.action", operator=operator, method="POST"),
        record("operator.action", text, "failure", operator=operator, method=text),
        record("session.revoked", operator=operator, revoked="key", token={"kid": text}),
        record("key.rotated", keys=keys),
        record("reload.succeeded", changed=[text], needs_restart=[text], count=1),
        record("reload.failed", settings=[text], detail=text),
        record("audit.gap", lost={text: 3}, cut=5, unclean_end=True),
        record(text),
    ]
