"""The index against the log itself: whatever happens to the one or the other, it has exactly the log's lines."""

import os
import random
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import msgspec
import pytest

from relay.audit.chain import Link, seal
from relay.audit.files import log_files
from relay.audit.index import manifest, parts
from relay.audit.index.database import Index
from relay.audit.index.rows import DERIVED, Row, rows_of
from relay.audit.index.sheets import SHEETS
from relay.audit.jsonl import JsonlAuditor
from relay.audit.query.records import epoch_ms, iso_of
from relay.core.errors import ConfigurationError
from relay.core.events import Event, to_record
from tests.support.audit_days import make_day
from tests.support.audit_logs import HOSTILE, an_event

_ALL = f"(SELECT *, {', '.join(f'{value} AS {name}' for name, (_, value) in DERIVED.items())} FROM lines)"
_PLACED = f"(SELECT * REPLACE (place AS start) FROM {_ALL})"
SHEETS_ARE = {
    "rare": ("SELECT * FROM rare_lines", f"SELECT * EXCLUDE ({', '.join(DERIVED)}) FROM {_ALL} WHERE rare"),
    "keys": (
        "SELECT * EXCLUDE (file, place), file, place FROM keys",
        SHEETS["keys"].replace(" FROM", ", file, place FROM").format(rows=_ALL),
    ),
    "kinds": ("SELECT DISTINCT * EXCLUDE (file) FROM kinds_of_parts", SHEETS["kinds"].format(rows=_ALL)),
    "uses": ("SELECT DISTINCT * EXCLUDE (file) FROM uses_of_parts", SHEETS["uses"].format(rows=_ALL)),
    "named": ("SELECT DISTINCT * EXCLUDE (file) FROM named_of_parts", SHEETS["named"].format(rows=_ALL)),
    "tokens": (
        "SELECT user_id, kind, sum(tokens)::BIGINT FROM spanned_tokens GROUP BY 1, 2",
        SHEETS["tokens"].format(rows=_ALL),
    ),
    "stories": (
        "SELECT jti_key, max(place), arg_max(holder, place), arg_max(kind, place), min(one), max(other), "
        "sum(uses)::BIGINT FROM spanned_stories GROUP BY 1",
        SHEETS["stories"].format(rows=_PLACED),
    ),
}
"""What each sheet has, and the same of the lines."""
TIMES = ("", "2024-02-29T23:59:59.999Z", "1969-12-31T23:59:59.001Z", "2026-02-30T00:00:00.000Z")
"""Times of records that are odd, and one that is none. The first is another text for each record."""
COLUMNS = ", ".join(f'"{field.name}"' for field in msgspec.structs.fields(Row))


@pytest.fixture(autouse=True)
def _short_tails(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the parts of a few records be small ones, and those of some more have sheets."""
    monkeypatch.setattr(parts, "_LONGEST_TAIL", 10_000)
    monkeypatch.setattr(parts, "_LONGEST_SMALL", 40_000)


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The lines of a short day, with hostile ones in it."""
    lines = (
        make_day(tmp_path_factory.mktemp("day") / "audit.jsonl", tokens=60).path.read_bytes().splitlines(True)
    )
    head = Link(writer="x" * 16, seq=0, hash="0" * 64)
    for text, at in product(HOSTILE.values(), TIMES):
        record = to_record(
            an_event(relay={"detail": text[:1000]}), timestamp=at or text[:50], event_id="i", node="n"
        )
        line, head = seal({**record, "user": {"id": text[:200]}}, head)
        lines.append(line + b"\n")
    return [
        *lines,
        b"no record\n",
        b"\n",
        b'{"event":{}}\n',
        b"\xff\xfe\n",
        b'{"@timestamp":"\\ud800","event":{"action":"x"}}\n',
    ]


class Log:
    """A log in a folder, that the test changes, and its index."""

    def __init__(self, folder: Path, lines: Sequence[bytes], dice: random.Random) -> None:
        self.path = folder / "audit.jsonl"
        self.index = folder / "audit-index"
        self.lines = lines
        self.dice = dice
        self.rebuilt = 0
        self.path.write_bytes(self.some())

    def some(self) -> bytes:
        return b"".join(self.dice.choices(self.lines, k=self.dice.randrange(1, 80)))

    def check(self) -> None:
        """Compare the index, brought up to date, with the log, line by line and field by field."""
        files = log_files(self.path)
        with Index(self.index, files, memory_mb=128, progress=lambda _done: None) as index:
            self.rebuilt = index.rebuilt
            asked = list(SHEETS_ARE.items())
            self.dice.shuffle(asked)  # the damage of a part is found by the one sheet or the other
            for one, (of_sheet, of_lines) in asked:
                rows = Counter(map(str, index.rows(of_sheet)))
                assert rows == Counter(map(str, index.rows(of_lines))), one
            index.make_keys_around(("~", "~"))
            assert not index.rows("SELECT place FROM keys_around EXCEPT SELECT place FROM keys")
            found = [
                tuple(tuple(value) if isinstance(value, list) else value for value in row)
                for row in index.rows(f"SELECT file, {COLUMNS} FROM lines ORDER BY place")
            ]
            lines = list(index.lines("true"))
            times = index.rows(
                "SELECT moment, ms FROM (SELECT place, moment AS ms FROM keys) JOIN lines USING (place)"
            )
            assert all(epoch_ms(text) == ms and iso_of(ms) == text for text, ms in times)
        plain = [
            (number, *msgspec.structs.astuple(row))
            for number, file in enumerate(files)
            for row in rows_of(_finished(file, is_live=file == self.path), 0)
        ]
        assert found == plain
        expected = [line for file in files for line in _finished(file, is_live=file == self.path)]
        assert lines == [line for line in expected if line.strip()]

    # what happens to it

    def grow(self) -> None:
        with self.path.open("ab") as file:
            file.write(self.some())

    def tear(self) -> None:
        """A writer was killed, or is in the middle of a line."""
        with self.path.open("ab") as file:
            file.write(self.dice.choice(self.lines)[:-20])

    def rotate(self) -> None:
        number = len(log_files(self.path))
        self.path.rename(self.path.with_name(f"audit-{number:012d}.jsonl"))
        self.path.write_bytes(self.some())

    def change_in_place(self) -> None:
        """A byte of the log is changed, and the file's times are set back."""
        path = self.dice.choice(log_files(self.path))
        was = path.stat()
        with path.open("rb+") as file:
            at = self.dice.randrange(max(1, was.st_size))
            file.seek(at)
            byte = file.read(1) or b"x"
            file.seek(at)
            file.write(bytes([byte[0] ^ (1 << self.dice.randrange(8))]))
        os.utime(path, ns=(was.st_atime_ns, was.st_mtime_ns))

    def replace(self) -> None:
        """A file of the log is another one."""
        path = self.dice.choice(log_files(self.path))
        path.unlink()
        path.write_bytes(self.some())

    def cut(self) -> None:
        path = self.dice.choice(log_files(self.path))
        os.truncate(path, self.dice.randrange(path.stat().st_size + 1))

    def delete_oldest(self) -> None:
        files = log_files(self.path)
        if len(files) > 1:
            files[0].unlink()

    def damage_index(self) -> None:
        """Bits flip, an end is missing, a file is gone or is that of another part."""
        files = [path for path in self.index.glob("*") if path.is_file() and path.stat().st_size]
        for path in self.dice.sample(files, min(len(files), self.dice.randrange(1, 4))):
            data = bytearray(path.read_bytes())
            match self.dice.randrange(5):
                case 0:
                    path.unlink()
                case 1:
                    path.write_bytes(data[: self.dice.randrange(len(data))])
                case 2:
                    path.write_bytes(
                        self.dice.choice(files).read_bytes() if self.dice.choice(files).exists() else b""
                    )
                case _:
                    for _ in range(3):
                        data[self.dice.randrange(len(data))] ^= 1 << self.dice.randrange(8)
                    path.write_bytes(data)


def _finished(path: Path, *, is_live: bool) -> list[bytes]:
    """Return the lines of a file; of the one that is being written, without what has no newline yet."""
    lines = [line + b"\n" for line in path.read_bytes().split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last and not is_live else lines


@pytest.mark.parametrize("seed", range(4))
def test_no_damage_changes_an_answer(tmp_path: Path, day: list[bytes], seed: int) -> None:
    """The log grows, rotates, is cut and changed in place, and the index is damaged, in any order."""
    dice = random.Random(seed)
    log = Log(tmp_path, day, dice)
    log.check()
    for _ in range(12):
        happening = dice.choice(
            [
                log.grow,
                log.grow,
                log.tear,
                log.rotate,
                log.change_in_place,
                log.replace,
                log.cut,
                log.delete_oldest,
            ]
            + [log.damage_index] * 4
        )
        happening()
        log.check()


def test_a_complete_file_is_read_once(
    tmp_path: Path, day: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second question reads the tail alone, also when the file of the log has another name by then."""
    log = Log(tmp_path, day, random.Random(1))
    for _ in range(3):
        log.rotate()
    log.check()
    assert log.rebuilt >= 3
    monkeypatch.setattr(parts, "_RECENT_NS", -1)  # no file of this test is changed so shortly after a look
    log.check()
    hashed: list[int] = []

    def counted(file: int, begin: int, end: int) -> str:
        if (
            begin
            or end != os.fstat(file).st_size
            or not str(Path(f"/proc/self/fd/{file}").readlink()).endswith("parquet")
        ):
            hashed.append(end)
        return of_range(file, begin, end)

    of_range = manifest.sha256_of_range
    monkeypatch.setattr(manifest, "sha256_of_range", counted)
    log.check()
    assert (log.rebuilt, hashed) == (0, [])


def test_a_question_reads_what_it_needs(
    tmp_path: Path, day: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sheets that it does not ask are not even checked. One that is damaged is found when it is asked, and not used."""
    log = Log(tmp_path, day, random.Random(5))
    log.rotate()
    log.check()
    read: list[str] = []

    def noted(file: int) -> str:
        read.append(Path(f"/proc/self/fd/{file}").readlink().name.split(".")[-2])
        return sha256_of(file)

    sha256_of = manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", noted)
    (usual,) = log.index.glob("audit-*.usual.parquet")
    data = bytearray(usual.read_bytes())
    data[len(data) // 2] ^= 1
    usual.write_bytes(data)
    with Index(log.index, log_files(log.path), memory_mb=128) as index:
        index.rows("SELECT count(*) FROM rare_lines")
        assert set(read) == {"rare"}
        index.rows("SELECT count(*) FROM spanned")
        assert set(read) == {"rare", "usual"}
        assert not usual.exists(), "the next question makes it"
    log.check()
    assert usual.exists()


def test_a_question_about_a_time_reads_the_parts_that_have_it(
    tmp_path: Path, day: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has all records of that time, odd ones too, and the sheets of other parts are not even checked."""
    log = Log(tmp_path, day, random.Random(7))
    for begin in range(0, len(day), 100):  # some parts have the odd times, others do not
        log.path.write_bytes(b"".join(day[begin : begin + 100]))
        log.rotate()
    log.check()
    with Index(log.index, log_files(log.path), memory_mb=128) as index:
        moments = [at for (at,) in index.rows("SELECT moment FROM lines WHERE NOT bad")]
        ends = {end for _, one in index.summaries if one.records for end in (one.earliest, one.latest)}
    checked: list[int] = []

    def noted(file: int) -> str:
        checked.append(file)
        return sha256_of(file)

    sha256_of = manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", noted)
    in_all = []
    for span in [one for end in ends for one in ((end, None), ("", end), (end, end))]:
        checked.clear()
        since, until = span
        with Index(log.index, log_files(log.path), memory_mb=128, span=span) as index:
            wanted = sum(since <= at <= (until or at) for at in moments)
            found = [index.rows(f"SELECT count(*) FROM {view}") for view in ("spanned", "spanned_keys")]
            assert found == [[(wanted,)], [(wanted,)]], span
        in_all.append(len(checked))
    assert min(in_all) < max(in_all)


def test_an_index_of_another_release_is_made_again(
    tmp_path: Path, day: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its files are removed, and its numbers are not believed."""
    log = Log(tmp_path, day, random.Random(6))
    log.rotate()
    with monkeypatch.context() as before:
        before.setattr(manifest, "VERSION", manifest.VERSION - 1)
        log.check()
    left = [log.index / f"audit.1.0-5.parquet{end}" for end in ("", ".duckdb", ".sha256")]
    for path in left:
        path.touch()
    log.check()
    assert log.rebuilt
    assert not any(path.exists() for path in left)
    log.check()
    assert not log.rebuilt


async def test_an_answer_is_right_up_to_the_last_record(tmp_path: Path) -> None:
    """While a relay writes, each answer has every record that was acknowledged before it was asked, and none twice."""
    path = tmp_path / "audit.jsonl"
    auditor = JsonlAuditor.open(path, node="node-1")
    written = 0
    for _ in range(8):
        for number in range(written, written + 50):
            auditor.note(an_event(number))
        written += 51
        await auditor.record(an_event(written - 1))  # it is in the file, and so are those before it
        auditor.note(an_event(-1))  # this one may be in it or not
        with Index(tmp_path / "audit-index", log_files(path), memory_mb=128) as index:
            ((count, users, marked),) = index.rows(
                "SELECT count(*) FILTER (user_id != 'user--1'), count(DISTINCT user_id) FILTER (user_id != 'user--1'),"
                " max(seq) = count(*) FROM lines WHERE NOT bad"
            )
            assert (users, marked) == (written, True)
            assert count >= written
    await auditor.aclose()


def test_what_a_killed_question_left_is_removed(tmp_path: Path, day: list[bytes]) -> None:
    """Its temporary files have copies of the log's fields: they go with one of the next questions, after a day."""
    log = Log(tmp_path, day, random.Random(4))
    log.check()
    old, new = log.index / ".sql-old", log.index / ".sql-new"
    for folder in (old, new):
        folder.mkdir()
        (folder / "tail.duckdb").touch()
    rows = log.index / ".tail_0.1.new"
    rows.touch()
    for path in (old, rows):
        os.utime(path, (1, 1))
    log.check()
    assert (old.exists(), rows.exists(), new.exists()) == (False, False, True)


def test_a_folder_of_others_is_refused(tmp_path: Path, day: list[bytes]) -> None:
    """A program that can write into it can write any answer: its mode, its owner and its kind are looked at."""
    log = Log(tmp_path, day, random.Random(2))
    log.check()
    log.index.chmod(0o750)
    with pytest.raises(ConfigurationError, match="others may use the index"):
        log.check()
    log.index.chmod(0o700)
    log.index.rename(tmp_path / "elsewhere")
    log.index.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigurationError, match="is a folder"):
        log.check()
    if os.geteuid() == 0:
        log.index.unlink()
        log.index.mkdir(mode=0o700)
        os.chown(log.index, 10001, 10001)
        with pytest.raises(ConfigurationError, match="another user"):
            log.check()


def test_a_log_larger_than_the_memory(tmp_path: Path) -> None:
    """An index of 128 MB answers questions that sort and count all lines."""
    head, lines = Link(writer="w" * 16, seq=0, hash="0" * 64), []
    for number in range(3000):
        record = to_record(
            Event(action=an_event().action, user=f"user-{number}"), timestamp=TIMES[1], event_id="i", node="n"
        )
        line, head = seal(record, head)
        lines.append(line + b"\n")
    log = Log(tmp_path, lines, random.Random(3))
    log.path.write_bytes(b"".join(lines) * 20)
    with Index(log.index, [log.path], memory_mb=128, progress=lambda _done: None) as index:
        assert index.rows("SELECT count(DISTINCT user_id), count(*) FROM lines") == [(3000, 60_000)]
