"""`relay audit sql`: the views are what the log says, and a query can do nothing but read them."""

import csv
import errno
import io
import json
import os
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from typer.testing import CliRunner

from relay.audit.chain import seal
from relay.audit.index import copies, sandbox
from relay.audit.index.copies import COPIES
from relay.audit.index.database import Index
from relay.audit.index.parts import quoted
from relay.audit.index.sql import asked
from relay.audit.index.views import VIEWS, statements
from relay.cli.audit import app
from relay.core.errors import ConfigurationError, Reason, RelayError
from relay.core.events import Action, Event, to_record
from tests.support.audit_days import BEGIN, Day, make_day


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A day in two files, so that there is a part and a tail, with one record of each kind that a day does not have."""
    folder = tmp_path_factory.mktemp("sql")
    day = make_day(folder / "audit.jsonl", tokens=300)
    lines = day.path.read_bytes().splitlines(keepends=True)
    row = {"channel": "prices.A", "epoch": "e", "first": 1, "last": 9, "count": 9, "bytes": 90, "dropped": 1}
    more = [
        Event(
            action=Action.PUBLISH_SUMMARY,
            relay={"publisher": {"id": "feed"}, "since": "2026-11-26T23:00:00.000Z", "publications": [row]},
        ),
        Event(
            action=Action.OPERATOR_ACTION,
            path="/v1/connections",
            relay={"operator": {"id": "olga"}, "method": "GET"},
        ),
        Event(action=Action.AUDIT_GAP, relay={"lost": {"logout": 3}, "unclean_end": True}),
        Event(
            action=Action.TOKEN_ISSUED,
            user="asker",
            endpoint="prices",
            relay={
                "token": {"jti": "asked-more", "channels": ["prices.A"], "exp": 4_000_000_000},
                "asked": {"channels": ["prices.A", "orders.A"]},
                "rejected": [{"channel": "orders.A", "reason": Reason.CHANNEL_FORBIDDEN.value}],
            },
        ),
    ]
    head = day.head
    for event in more:
        line, head = seal(
            to_record(event, timestamp="2026-11-27T02:00:00.000Z", event_id="e", node="n"), head
        )
        lines.append(line + b"\n")
    lines.insert(40, b"no record\n")
    folder.joinpath("audit-000000000001.jsonl").write_bytes(b"".join(lines[:500]))
    day.path.write_bytes(b"".join(lines[500:]))
    return day


@pytest.fixture(scope="module")
def index(day: Day) -> Iterator[Index]:
    """The index of the day."""
    files = [day.path.with_name("audit-000000000001.jsonl"), day.path]
    with Index(day.path.parent / "audit-index", files, memory_mb=128) as index:
        yield index


def ask(index: Index, query: str, timeout_s: int = 60) -> list[list[Any]]:
    """Return all rows of the answer."""
    with asked(index, query, timeout_s=timeout_s) as answer:
        return list(answer.rows)


def test_each_view_has_the_columns_that_are_documented(index: Index) -> None:
    """All in one query, because each starts a process."""
    found = ask(
        index, "SELECT table_name, list(column_name ORDER BY column_index) FROM duckdb_columns() GROUP BY ALL"
    )
    columns = {name: names for name, names in found if name in VIEWS}
    assert columns == {name: list(view.columns) for name, view in VIEWS.items()}


def test_keys_join_what_names_join(index: Index) -> None:
    """In the part, in the tail, and from one to the other."""
    ((pairs, wrong, held),) = ask(
        index,
        """SELECT count(*), count(*) FILTER (token.connection IS DISTINCT FROM opened.connection),
                count(*) FILTER ((opened.until IS NULL) IS DISTINCT FROM (token.jti IN (
                    SELECT jti FROM grants WHERE held)))
            FROM tokens AS token JOIN connections AS opened ON opened.jti = token.jti""",
    )
    assert pairs > 100
    assert (wrong, held) == (0, 0)


def test_views_are_what_was_counted(day: Day, index: Index) -> None:
    """Tokens, used grants, open connections, refusals, publications, gaps: against the counts that the day kept."""
    noon = BEGIN + timedelta(hours=12)
    ((tokens, used, replayed, gaps, published, operators, asked_more),) = ask(
        index,
        """SELECT (SELECT count(*) FROM tokens),
            (SELECT map_from_entries(list((key, n))) FROM (
                SELECT roles[1] || ' ' || endpoint || ' ' || scope AS key, count(*) AS n FROM grants WHERE used
                GROUP BY ALL)),
            (SELECT count(*) FROM denials WHERE reason = 'token_replayed'),
            (SELECT list(kind || ' ' || "count" ORDER BY kind) FROM gaps),
            (SELECT list(publisher || ' ' || channel || ' ' || "count") FROM publications),
            (SELECT list(operator || ' ' || path) FROM operators),
            (SELECT list("user" || ' ' || reason || ' ' || channels[1]) FROM denials WHERE action = 'token.issued')""",
    )
    assert tokens == day.actions[Action.TOKEN_ISSUED] + 1
    closed = {name for name, _, _, ended in day.spans if ended is not None}
    assert sum(used.values()) <= sum(day.used.values())
    assert len(closed) < len(day.spans), "the grants of open connections have no use yet"
    assert set(used) <= {" ".join(key) for key in day.used}
    assert replayed == day.marked
    assert gaps == ["lost 3", "no record 1", "unclean end 1"]
    assert published == ["feed prices.A 9"]
    assert operators == ["olga /v1/connections"]
    assert asked_more == ["asker channel_forbidden orders.A"]
    at = noon.replace(tzinfo=None).isoformat()
    open_ = ask(
        index,
        "SELECT connection, endpoint, killed, until FROM connections "
        f"WHERE since <= '{at}' AND (until IS NULL OR until > '{at}')",
    )
    assert {row[0] for row in open_} == day.open_at("prices", noon) | day.open_at("trades", noon)
    ends = {name: ended for name, _, _, ended in day.spans}
    for name, _, killed, until in open_:
        ended = ends[name]
        assert killed is (ended is None)
        if ended is not None:
            assert datetime.fromisoformat(until) == ended.replace(tzinfo=None)
    assert ask(index, 'SELECT "user" FROM grants WHERE held') == [["asker"]], (
        "the relay of all others was killed"
    )


ATTACKS = [
    "SELECT * FROM read_csv('{secret}')",
    "SELECT * FROM '{secret}'",
    "SELECT content FROM read_text('{secret}')",
    "SELECT * FROM glob('{folder}/*')",
    "SELECT * FROM read_parquet('{parts}/*.parquet')",
    "SELECT * FROM sniff_csv('{secret}')",
    "SELECT * FROM sqlite_scan('{secret}', 'x')",
    "COPY (SELECT 1) TO '{folder}/stolen'",
    "COPY tokens TO '{parts}/stolen.parquet'",
    "ATTACH '{folder}/new.db'",
    "EXPORT DATABASE '{folder}/stolen'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "SET allowed_directories = ['/']",
    "SET memory_limit = '100GB'",
    "RESET lock_configuration",
    "DELETE FROM part_0.rare",
    "CREATE TABLE part_0.more AS SELECT 1",
]


def test_the_locked_database_opens_nothing(index: Index, tmp_path: Path) -> None:
    """No file, extension or setting, whatever the statement: the process does not rely on the check of its kind."""
    secret = tmp_path / "secret.csv"
    secret.write_text("canary\n")
    before = sorted(path.name for path in index.folder.iterdir())
    copied = index.databases(list(COPIES), tmp_path)
    setup = {
        "memory_mb": 128,
        "databases": [str(one.path) for one in copied],
        "views": statements(list(VIEWS), copied, index.span, "", index.killed),
    }
    after = sorted(tmp_path.iterdir())
    with sandbox.locked(duckdb, setup) as database:
        for attack in ATTACKS:
            with pytest.raises(duckdb.Error):
                database.execute(attack.format(secret=secret, folder=tmp_path, parts=index.folder))
        assert database.execute("SELECT count(*) > 0 FROM tokens").fetchall() == [(True,)]
    assert sorted(tmp_path.iterdir()) == after
    assert {path.name for path in index.folder.iterdir()} >= set(before)


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("SELECT content FROM read_text('/etc/hostname')", "can read the views alone"),
        ("DETACH part_0", "Only SELECT is allowed, and not DETACH"),
        ("SELECT 1; SELECT 2", "Give one statement, and not 2"),
        ("SELECT usr FROM tokens", "Did you mean"),
        ("SELECT * FROM tokns", "There are the views tokens, connections, grants,"),
        ("SELEC 1", "syntax error"),
        ("SELECT jti, at FROM tokens", 'write "at".'),
        ("SELECT now()", "Cast it"),
    ],
)
def test_a_wrong_query_is_told_what_is_wrong(index: Index, query: str, sentence: str) -> None:
    """In one short line, with the names that there are."""
    with pytest.raises(ConfigurationError) as caught:
        ask(index, query)
    assert sentence in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("query", "timeout_s", "sentence"),
    [
        (
            "SELECT count(*) FROM range(100000000000) AS a, range(1000000) AS b WHERE a.range % 7 = b.range % 11",
            2,
            "took longer than 2 s",
        ),
        (
            "SELECT list(range) FROM range(10000000000)",
            60,
            r"more memory than the \d+ MB that audit.index_memory_mb",
        ),
        ("SELECT repeat('x', 1000000000)", 60, "more memory than|longer than 16 MB"),
        ("SELECT range FROM range(100000000000)", 2, "took longer than 2 s"),
    ],
)
def test_a_query_is_ended(index: Index, query: str, timeout_s: int, sentence: str) -> None:
    """One that runs without end, fills the memory, or has an answer without an end: the error says which."""
    with (
        pytest.raises(RelayError, match=sentence),
        asked(index, query, timeout_s=timeout_s) as answer,
    ):
        deque(answer.rows, maxlen=0)


def test_an_answer_can_be_a_table_json_csv_or_parquet(day: Day, tmp_path: Path) -> None:
    """The same values in each, and a cell that a spreadsheet would run is quoted."""
    query = "SELECT '=1+1' AS a, 2 AS b, ['x', 'y'] AS c, NULL AS d, 1.5 AS b"

    def told(*options: str) -> str:
        result = CliRunner().invoke(app, ["sql", query, "--file", str(day.path), *options])
        assert result.exit_code == 0, result.exception
        return result.stdout

    assert told().splitlines() == ["a\tb\tc\td\tb", "=1+1\t2\tx y\t\t1.5"]
    assert json.loads(told("--json")) == [{"a": "=1+1", "b": 2, "c": ["x", "y"], "d": None, "b_2": 1.5}]
    assert list(csv.reader(io.StringIO(told("--csv"))))[1] == ["'=1+1", "2", "x y", "", "1.5"]
    told("--parquet", str(tmp_path / "answer.parquet"))
    with duckdb.connect() as database:
        found = database.execute(f"SELECT * FROM {quoted(tmp_path / 'answer.parquet')}")
        assert [name for name, *_ in found.description] == ["a", "b", "c", "d", "b_2"]
        assert [str(value) for value in found.fetchall()[0]] == ["=1+1", "2", "['x', 'y']", "None", "1.5"]
    listed = CliRunner().invoke(app, ["sql", "--file", str(day.path)]).stdout
    assert all(name in listed for name in VIEWS)


def test_odd_values_stay_what_they_are(day: Day, tmp_path: Path) -> None:
    """Types that JSON does not have, two columns with one name, and texts of all languages."""
    query = """SELECT 1 AS a, 2 AS a, true AS yes, 1.5::DECIMAL(9, 2) AS d, INTERVAL 1 DAY AS i, 'a'::BLOB AS b,
        NULL AS n, '10:00'::TIME AS t, 'é日😀' AS u, 'nan'::DOUBLE AS x, [1, 2] AS l, uuid() AS id, sum(7) AS s"""
    path = tmp_path / "odd.parquet"
    for options in (["--json"], ["--csv"], ["--parquet", str(path)]):
        result = CliRunner().invoke(app, ["sql", query, *options, "--file", str(day.path)])
        assert result.exit_code == 0, result.exception
        if options == ["--json"]:
            (row,) = json.loads(result.stdout)
            assert (row["a"], row["a_2"], row["yes"], row["d"], row["u"]) == (1, 2, True, 1.5, "é日😀")
        elif options == ["--csv"]:
            assert '1,2,true,1.5,"1 day, 0:00:00",61,,10:00:00,é日😀,nan' in result.stdout
    names = "typeof(d), i, b, u, l::VARCHAR, length(id), s"
    found = duckdb.sql(f"SELECT {names} FROM {quoted(path)}").fetchall()
    assert found == [("DOUBLE", "1 day, 0:00:00", "61", "é日😀", "[1,2]", 36, 7)]
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("target", "sentence"),
    [
        ("audit.jsonl", "is a file of the audit log, and is not written over"),
        ("folder", "is no regular file"),
        ("link", "is no regular file"),
        ("absent/x.parquet", "absent/x.parquet can't be written: No such file or directory."),
    ],
)
def test_an_answer_replaces_nothing_but_a_file(tmp_path: Path, target: str, sentence: str) -> None:
    """Neither the log nor what a link leads to; and the error names the option."""
    log = make_day(tmp_path / "audit.jsonl", tokens=5).path
    before = log.read_bytes()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(log)
    for command in (["sql", "SELECT 1", "--parquet"], ["report", "--html"]):
        result = CliRunner().invoke(app, [*command, str(tmp_path / target), "--file", str(log)])
        assert f"{command[-1]}: " in str(result.exception)
        assert sentence in str(result.exception)
    assert log.read_bytes() == before
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    "question", [("stats",), ("export",), ("why", "jti-1", "--json"), ("sql", "SELECT 1", "--csv")]
)
def test_a_full_disk_is_one_sentence(day: Day, question: tuple[str, ...]) -> None:
    """Of whatever question, written at once or at the end."""
    command = [sys.executable, "-m", "relay", "audit", *question, "--file", str(day.path)]
    with Path("/dev/full").open("wb") as full:
        ended = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False
        )
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == "Standard output can't be written: No space left on device."
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("question", ["why", "sql"])
def test_other_bytes_than_text_are_refused(day: Day, question: str) -> None:
    """An argument in another encoding, as an old terminal sends it, is named."""
    command: list[str | bytes] = [
        sys.executable,
        "-m",
        "relay",
        "audit",
        question,
        b"caf\xe9",
        "--file",
        str(day.path),
    ]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1] == r"The argument 'caf\udce9' is not UTF-8."


def test_a_damaged_copy_is_made_again(day: Day, index: Index) -> None:
    """Flipped bits in the database that the query's process reads change no answer."""
    before = ask(index, 'SELECT count(*), count(DISTINCT "user"), max(jti) FROM tokens')
    (copy,) = index.folder.glob("*.issued.duckdb")
    data = bytearray(copy.read_bytes())
    for at in range(0, len(data), len(data) // 50):
        data[at] ^= 16
    copy.write_bytes(data)
    assert ask(index, 'SELECT count(*), count(DISTINCT "user"), max(jti) FROM tokens') == before


def test_files_share_copies_and_a_removed_one_leaves_none(tmp_path: Path) -> None:
    """Of many short files, each row stays that of its file. What was copied of a removed file is removed."""
    lines = make_day(tmp_path / "audit.jsonl", tokens=40).path.read_bytes().splitlines(keepends=True)
    (tmp_path / "audit.jsonl").unlink()
    files = [tmp_path / f"audit-{number:012}.jsonl" for number in range(1, 21)]
    for number, path in enumerate(files):
        path.write_bytes(b"".join([*lines[number::20], b"no record\n"]))
    query = (
        "SELECT (SELECT count(*) FROM tokens), (SELECT list(file ORDER BY file) FROM gaps WHERE length = 10)"
    )
    with Index(tmp_path / "audit-index", files, memory_mb=128) as index:
        ((tokens, numbers),) = ask(index, query)
        ((again, _),) = ask(index, query)
        copied = set(index.folder.glob("*.duckdb"))
    assert tokens == again > 0
    assert set(numbers) == set(range(20))
    assert len(copied) < 20 * 4
    files.pop(0).unlink()
    with Index(tmp_path / "audit-index", files, memory_mb=128) as index:
        left = set(index.folder.glob("*.duckdb"))
        assert left < copied
        ((fewer, numbers),) = ask(index, query)
        assert set(index.folder.glob("*.duckdb")) & copied == left
    assert (fewer <= tokens, set(numbers)) == (True, set(range(19)))


def test_a_group_that_grew_leaves_no_copy_of_what_it_was(tmp_path: Path) -> None:
    """A file that is complete later joins the last group, whose copies are made again."""
    lines = make_day(tmp_path / "audit.jsonl", tokens=40).path.read_bytes().splitlines(keepends=True)
    (tmp_path / "audit.jsonl").unlink()
    files = [tmp_path / f"audit-{number:012}.jsonl" for number in range(1, 4)]
    for number, path in enumerate(files):
        path.write_bytes(b"".join(lines[number::3]))
    for folder, most in (("grown", 1), ("grown", 2), ("grown", 3), ("new", 3)):
        with Index(tmp_path / folder, files[:most], memory_mb=128) as index:
            ask(index, "SELECT count(*) FROM tokens")
    grown, new = ({path.name for path in (tmp_path / one).glob("*.duckdb")} for one in ("grown", "new"))
    assert grown == new
    assert len(list((tmp_path / "grown").glob("*.sha256"))) == len(new)


@pytest.mark.parametrize("links", [True, False])
def test_a_copy_that_another_question_removes_is_read_to_the_end(
    index: Index, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process that reads it opens it later. A file system without links has the copies all the same."""

    def no_link(*_args: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    if not links:
        monkeypatch.setattr(os, "link", no_link)
    for round_ in range(2):  # the first one makes the copies
        aside = tmp_path / str(round_)
        aside.mkdir()
        copied = index.databases(list(COPIES), aside)
        assert len(list(index.folder.glob("*.duckdb"))) == len(COPIES)
        if round_:
            copies.remove_others(index.folder, [])
            assert not list(index.folder.glob("*.duckdb"))
        views = statements(list(VIEWS), copied, index.span, "", index.killed)
        setup = {"memory_mb": 128, "databases": [str(one.path) for one in copied], "views": views}
        with sandbox.locked(duckdb, setup) as database:
            assert database.execute("SELECT count(*) > 0 FROM tokens").fetchall() == [(True,)]


def test_a_copy_in_the_making_is_left_alone(day: Day, index: Index) -> None:
    """Another question that comes meanwhile removes what no question uses, and not what one is writing."""
    part = next(index.folder.glob("*.parquet"))
    making = part.with_name(f".{part.name}.duckdb.1.new")
    unknown = part.with_name(f"other-{part.name}")
    making.write_bytes(b"half")
    unknown.write_bytes(b"half")
    assert CliRunner().invoke(app, ["stats", "--file", str(day.path)]).exit_code == 0
    assert (making.exists(), unknown.exists()) == (True, False)
    old = time.time() - 2 * 86_400
    os.utime(making, (old, old))
    assert CliRunner().invoke(app, ["stats", "--file", str(day.path)]).exit_code == 0
    assert not making.exists()
