"""The questions from an index in parts and from one that was just read: the same answers, character by character."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import duckdb
import pytest
from typer.testing import CliRunner

from relay.audit.chain import Link, seal
from relay.audit.index import manifest, parts
from relay.audit.index.parts import quoted
from relay.cli.audit import app
from relay.core.errors import Reason
from relay.core.events import Action, Client, Event, to_record
from tests.support.audit_days import make_day

AT = "2026-11-26T09:00:00.000Z"
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
    ("scopes", "--json"),
    ("scopes", "--users", "--unused", "--since", "2026-11-26T06:00"),
    ("export",),
    ("export", "--all", "--until", "2026-11-26T06:00"),
    ("tail", "--no-follow", "--user", "nobody"),
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


@pytest.fixture(scope="module")
def in_one(files: list[Path]) -> list[Path]:
    """The same log in one file, which has no part yet: each question reads all of it."""
    folder = files[0].parent / "one"
    folder.mkdir()
    path = folder / "audit.jsonl"
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    return [path]


@pytest.fixture(autouse=True)
def _long_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "_LONGEST_TAIL", 2 << 20)


@pytest.mark.parametrize("question", QUESTIONS, ids=" ".join)
def test_the_same_answer(files: list[Path], in_one: list[Path], question: tuple[str, ...]) -> None:
    """What the parts answer is what the log says, with the same warnings about what is missing."""
    if question[0] != "tail":  # it shows the newest file alone
        assert answer(files, *question) == answer(in_one, *question)
    assert len(list((files[0].parent / "audit-index").glob("*.rare.parquet"))) == 2
    assert not list((in_one[0].parent / "audit-index").glob("*.parquet"))


def test_a_damaged_index_never_answers(files: list[Path]) -> None:
    """Parts with flipped bits are made again before they are asked."""
    before = answer(files, "stats", "--json")
    for part in (files[0].parent / "audit-index").glob("*.parquet"):
        data = bytearray(part.read_bytes())
        data[len(data) // 3] ^= 4
        part.write_bytes(data)
    assert answer(files, "stats", "--json") == before


def test_an_index_that_lies_is_found(files: list[Path]) -> None:
    """A program that can write the folder can write sums that fit: verify reads the log again, and compares."""
    answer(files, "stats")
    named = [str(path) for path in files]
    first = CliRunner().invoke(app, ["verify", "--index", *named])
    assert "the index is what the log says" in first.stdout
    folder = files[0].parent / "audit-index"
    forged, *others = manifest.read(folder, duckdb.__version__)
    part = forged.path(folder, "usual")
    with duckdb.connect() as database:
        database.execute(f"CREATE TABLE rows AS SELECT * FROM read_parquet({quoted(part)})")
        database.execute(
            "UPDATE rows SET user_id = 'somebody' WHERE user_id = (SELECT max(user_id) FROM rows)"
        )
        database.execute(f"COPY rows TO {quoted(part)} (FORMAT parquet)")
    forged.sheets["usual"] = hashlib.sha256(part.read_bytes()).hexdigest()
    manifest.write(folder, duckdb.__version__, [forged, *others])
    found = CliRunner().invoke(app, ["verify", "--index", "--json", *named])
    assert json.loads(found.stdout)["index_differing"] > 0
    shutil.rmtree(folder)


def test_without_duckdb_the_answer_is_what_to_install(
    files: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Questions need the extra; tail and verify do without it."""
    for module in ("duckdb", "_duckdb"):
        monkeypatch.setitem(sys.modules, module, None)
    for module in [name for name in sys.modules if name.startswith("relay.audit.index.")]:
        if module not in ("relay.audit.index.manifest", "relay.audit.index.rows"):
            monkeypatch.delitem(sys.modules, module)
    for question in (["stats"], ["who", "prices"], ["export"], ["why", "jti-3"], ["scopes"], ["anomalies"]):
        code, out, error = answer(files, *question)
        assert (code, out) == (1, "")
        assert "pip install 'scoped-relay[audit]'" in error
    assert answer(files, "tail", "--no-follow")[0] == 0
    assert CliRunner().invoke(app, ["verify", str(files[0])]).exit_code == 14, "its damage is found"


def test_ctrl_c_while_the_index_is_made_is_no_traceback(tmp_path: Path) -> None:
    """DuckDB raises what is no `KeyboardInterrupt`. The next question makes the index."""
    day = make_day(tmp_path / "audit.jsonl", tokens=5000)
    command = [sys.executable, "-m", "relay", "audit", "stats", "--json", "--file", str(day.path)]
    for _ in range(20):
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            while process.poll() is None and not list(tmp_path.glob("audit-index/.*.parquet.new")):
                time.sleep(0.0005)  # a file appears: there is nothing to await
            process.send_signal(signal.SIGINT)
            out, said = process.communicate()
        if process.returncode:  # it was not ready before the signal came
            break
        shutil.rmtree(tmp_path / "audit-index")
    assert (process.returncode, out, said) == (130, b"", b"")
    code, answered, _ = answer([day.path], "stats", "--json")
    assert code == 0
    assert {row["action"]: row["count"] for row in json.loads(answered)["actions"]} == day.actions


def test_a_reader_who_may_not_write_gets_the_answer(
    files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An auditor may read the log and not write next to it: the index is made elsewhere for one answer, and removed."""
    copies = [Path(shutil.copy(file, tmp_path)) for file in files]
    expected = answer(files, "stats", "--json")
    monkeypatch.setattr("os.access", lambda _path, mode: not mode & os.W_OK)
    code, out, warnings = answer(copies, "stats", "--json")
    assert (code, out) == expected[:2]
    assert "can't be written, so the whole log is read for this answer alone" in warnings
    assert sorted(tmp_path.iterdir()) == sorted(copies)


def test_an_answer_says_when_the_log_was_verified(files: list[Path]) -> None:
    """Up to which record it knows the log, and what the last check of the log found."""
    assert "Known up to record" in (first := answer(files, "stats")[2])
    assert "When it was verified is not known here: relay audit verify." in first
    verdict = CliRunner().invoke(app, ["verify", *map(str, files)]).stdout.strip().partition(": ")[2]
    then = answer(files, "stats")[2]
    assert "Last verified 20" in then
    assert f"Z: {verdict.removesuffix('.')}.\n" in then


def test_an_answer_from_several_chains_says_in_few_words_what_verify_found(tmp_path: Path) -> None:
    """How many are whole; or the damage, and nothing of the others."""
    logs = [tmp_path / "audit.1.jsonl", tmp_path / "audit.2.jsonl"]
    for number, log in enumerate(logs):
        head, text = Link(writer=str(number) * 32, seq=0, hash="0" * 64), b""
        for _ in range(2):
            record = to_record(Event(action=Action.LOGOUT), timestamp=AT, event_id="e", node="n")
            line, head = seal(record, head)
            text += line + b"\n"
        log.write_bytes(text)
    answer(logs, "stats")
    assert CliRunner().invoke(app, ["verify", *map(str, logs)]).exit_code == 0
    assert "Z: all 2 chains are whole.\n" in answer(logs, "stats")[2]
    logs[1].write_bytes(logs[1].read_bytes().replace(b'"outcome":"success"', b'"outcome":"failure"'))
    found = CliRunner().invoke(app, ["verify", *map(str, logs)])
    assert found.exit_code == 10, found.output
    sentence = found.stdout.splitlines()[1].partition(": ")[2]
    assert f"Z: {sentence}\n" in answer(logs, "stats")[2], "it ends with one full stop"
