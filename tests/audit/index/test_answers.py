"""The questions from an index and from the whole log: the same answers, character by character."""

import json
import shutil
import sys
from pathlib import Path

import duckdb
import msgspec
import pytest
from typer.testing import CliRunner

from relay.audit.chain import Link, seal
from relay.audit.index import manifest
from relay.audit.index.parts import quoted
from relay.cli.audit import app
from relay.cli.audit import input as reading
from relay.core.errors import Reason
from relay.core.events import Action, Client, Event, to_record
from tests.support.audit_days import make_day

QUESTIONS = [
    ("why", "jti-3"),
    ("why", "connection-5", "--json"),
    ("why", "trader-7"),
    ("why", "ref-trader-7", "--json"),
    ("why", "nobody"),
    ("why", "jti-3", "--since", "2026-11-26T12:00"),
    ("why", "claimed-user"),
    ("who", "prices", "--at", "2026-11-26T12:00"),
    ("who", "prices", "--since", "2026-11-26T08:00", "--until", "2026-11-26T12:00", "--json"),
    ("who", "prices", "--at", "2026-11-26T23:59:59", "--json", "--channel", "prices.SOL-USD"),
    ("who", "trades", "--at", "2026-11-27T12:00", "--json"),
    ("who", "price"),
    ("anomalies", "--json"),
    ("anomalies", "--mark", "denial_burst"),
    ("stats",),
    ("stats", "--json", "--since", "2026-11-26T06:00", "--until", "2026-11-26T18:00"),
    ("stats", "--since", "2030-01-01"),
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A day in three files, with a killed relay, floods, claims, gaps and lines that are no record."""
    folder = tmp_path_factory.mktemp("day")
    lines = make_day(folder / "day", tokens=600).path.read_bytes().splitlines(keepends=True)
    (folder / "day").unlink()
    more = [
        Event(
            action=Action.CONNECT_DENIED,
            reason=Reason.TOKEN_SIGNATURE,
            relay={"claimed": {"user": "claimed-user"}},
        ),
        Event(
            action=Action.DENIALS_AGGREGATED,
            relay={"denied": {"connect.denied": {"token_malformed": 47}}, "anomalies": ["denial_burst"]},
        ),
        Event(action=Action.PUBLISH_DENIED, reason=Reason.CHANNEL_FORBIDDEN, relay={"count": 12}),
        Event(
            action=Action.AUDIT_GAP, relay={"lost": {"connect.denied": 5, "logout": 2}, "unclean_end": True}
        ),
        Event(action=Action.LOGIN_FAILED, reason=Reason.LOGIN_REFUSED, client=Client(address="10.0.0.1")),
    ]
    head = Link(writer="w" * 32, seq=0, hash="0" * 64)
    for number, event in enumerate(more):
        at = f"2026-11-26T1{number}:00:00.000Z"
        line, head = seal(to_record(event, timestamp=at, event_id="e", node="n"), head)
        lines.insert(len(lines) * (number + 1) // 7, line + b"\n")
    lines[100:100] = [b"no record\n", b'{"event":1}\n']
    third = len(lines) // 3
    names = ["audit-000000000001.jsonl", "audit-000000000700.jsonl", "audit.jsonl"]
    for number, name in enumerate(names):
        (folder / name).write_bytes(
            b"".join(lines[number * third : (number + 1) * third if number < 2 else None])
        )
    return [folder / name for name in names]


def answer(files: list[Path], *question: str) -> tuple[int, str, str]:
    """Ask, and return the exit code and both outputs."""
    named = [text for path in files for text in ("--file", str(path))]
    result = CliRunner().invoke(app, [*question, *named])
    return result.exit_code, result.stdout, result.stderr + repr(result.exception)


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_the_same_answer(
    files: list[Path], question: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the index answers is what the log says, with the same warnings about what is missing."""
    from_log = answer(files, *question)
    monkeypatch.setattr(reading, "INDEX_FROM_BYTES", 0)
    from_index = answer(files, *question)
    if question[0] == "why":  # without an index it parses few lines, and counts fewer that are no record
        assert "2 lines passed over" in from_index[2]
        assert from_index[2].endswith(from_log[2].splitlines()[-1])
        from_log, from_index = (*from_log[:2], ""), (*from_index[:2], "")
    assert from_index == from_log
    assert (files[0].parent / "audit-index" / "manifest.json").exists()


def test_a_damaged_index_never_answers(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts with flipped bits are made again before they are asked."""
    from_log = answer(files, "stats", "--json")
    monkeypatch.setattr(reading, "INDEX_FROM_BYTES", 0)
    answer(files, "stats", "--json")
    for part in (files[0].parent / "audit-index").glob("*.parquet"):
        data = bytearray(part.read_bytes())
        data[len(data) // 3] ^= 4
        part.write_bytes(data)
    assert answer(files, "stats", "--json") == from_log


def test_an_index_that_lies_is_found(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that can write the folder can write sums that fit: verify reads the log again, and compares."""
    monkeypatch.setattr(reading, "INDEX_FROM_BYTES", 0)
    answer(files, "stats")
    named = [str(path) for path in files]
    first = CliRunner().invoke(app, ["verify", "--index", *named])
    assert "the index is what the log says" in first.stdout
    folder = files[0].parent / "audit-index"
    forged, *others = manifest.read(folder)
    part = folder / forged.name
    with duckdb.connect() as database:
        database.execute(f"CREATE TABLE rows AS SELECT * FROM read_parquet({quoted(part)})")
        database.execute(
            "UPDATE rows SET user_id = 'somebody' WHERE user_id = (SELECT max(user_id) FROM rows)"
        )
        database.execute(f"COPY rows TO {quoted(part)} (FORMAT parquet)")
    forged = msgspec.structs.replace(forged, sha256=manifest.sha256_of(part))
    manifest.write(folder, [forged, *others])
    found = CliRunner().invoke(app, ["verify", "--index", "--json", *named])
    assert json.loads(found.stdout)["index_differing"] > 0
    shutil.rmtree(folder)


def test_without_duckdb_the_log_is_read(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """The answer is the same, and says what to install."""
    from_log = answer(files, "who", "prices", "--json", "--at", "2026-11-26T12:00")
    monkeypatch.setattr(reading, "INDEX_FROM_BYTES", 0)
    monkeypatch.setitem(sys.modules, "relay.audit.index.database", None)
    code, out, warnings = answer(files, "who", "prices", "--json", "--at", "2026-11-26T12:00")
    assert (code, out) == from_log[:2]
    assert json.loads(out)
    assert "pip install 'scoped-relay[audit]'" in warnings


def test_where_no_index_can_be_written_the_log_is_read(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log of another machine may be on a disk that can't be written."""
    from_log = answer(files, "stats", "--json")
    monkeypatch.setattr(reading, "INDEX_FROM_BYTES", 0)

    def full(*_arguments: object, **_options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("relay.audit.index.database.Index.__init__", full)
    code, out, warnings = answer(files, "stats", "--json")
    assert (code, out) == from_log[:2]
    assert "No space left on device" in warnings
