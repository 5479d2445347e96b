"""The log's file: locked, append only, and going on after whatever a crash or a full disk left at its end."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.audit import logfile
from relay.audit.chain import Link, seal, unseal
from relay.audit.logfile import LogFile
from relay.core.errors import ConfigurationError
from relay.core.events import Action, Event, to_record
from tests.support.audit_logs import an_event, checked, disk_with, write_log


def sealed(file: LogFile, count: int) -> list[tuple[bytes, Link]]:
    """Return the next `count` lines for `file`, a gap record before them if it needs one."""
    events = [an_event(file.head.seq + number) for number in range(count)]
    if (unreadable := file.unreadable) is not None:
        details = {"unreadable": msgspec.structs.asdict(unreadable)}
        events.insert(0, Event(action=Action.AUDIT_GAP, relay=details))
    lines, head = [], file.head
    for event in events:
        line, head = seal(to_record(event, timestamp="t", event_id="i", node="n"), head)
        lines.append((line, head))
    return lines


def test_a_new_log_is_for_its_user_alone(path: Path) -> None:
    """Nobody else may read who connected when."""
    LogFile.open(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_second_writer_in_this_process_is_refused(path: Path) -> None:
    """Two writers would fork the chain."""
    first = LogFile.open(path)
    with pytest.raises(ConfigurationError, match="being written by another process"):
        LogFile.open(path)
    first.close()
    LogFile.open(path).close()


def test_a_second_process_is_refused_and_told_why(path: Path) -> None:
    """The lock holds between processes, and ends with the one that had it."""
    code = (
        "import sys; from pathlib import Path; from relay.audit.logfile import LogFile\n"
        "file = LogFile.open(Path(sys.argv[1])); print('open', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(ConfigurationError, match="needs a file of its own") as refused:
            LogFile.open(path)
        assert "\n" not in str(refused.value)
        other.kill()
    LogFile.open(path).close()


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    """The message has the setting, the path and what to do."""
    with pytest.raises(
        ConfigurationError, match=r"audit\.path: .*/no/audit\.jsonl can't be used.*Name a file"
    ):
        LogFile.open(tmp_path / "no" / "audit.jsonl")


def test_a_folder_is_no_log(tmp_path: Path) -> None:
    """A path that is a folder is refused in the same words."""
    with pytest.raises(ConfigurationError, match="can't be used"):
        LogFile.open(tmp_path)


def test_a_pipe_is_no_log(path: Path) -> None:
    """What can't be read back can't be verified, and a pipe without a reader would hold up every token."""
    os.mkfifo(path)
    with pytest.raises(ConfigurationError, match="not a regular file"):
        LogFile.open(path)


def test_a_folder_that_may_not_be_written_to_is_refused(tmp_path: Path) -> None:
    """A user without the right gets the sentence, not a traceback."""
    tmp_path.chmod(0o555)
    code = (
        "import os, sys; from pathlib import Path; from relay.audit.logfile import LogFile\n"
        "from relay.core.errors import ConfigurationError\n"
        "if os.geteuid() == 0: os.seteuid(65534)  # root may write anywhere\n"
        "try: LogFile.open(Path(sys.argv[1]))\n"
        "except ConfigurationError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "audit.jsonl")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "can't be used as the audit log (Permission denied)" in done.stdout


@pytest.mark.parametrize(
    "content",
    [b"hello\n", b"\n", b"{}\n", b"\x00" * 5000, b"[" * 100_000, b'{"price":1}\n' * 9000, b"\xff\xfe"],
    ids=["text", "newline", "json", "zeros", "brackets", "records", "binary"],
)
def test_a_file_that_is_no_log_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    """A wrong path in the settings must not spoil somebody's file."""
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match="is no audit log"):
        LogFile.open(path)
    assert path.read_bytes() == content


def test_a_tail_without_any_record_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More damage at the end than a crash can leave needs a person, and the search for a record ends."""
    monkeypatch.setattr(logfile, "MAX_END_BYTES", 1 << 17)
    write_log(path, 3)
    with path.open("ab") as file:
        file.write(b"x" * (1 << 18))
    with pytest.raises(ConfigurationError, match="its end is damaged"):
        LogFile.open(path)


def test_the_chain_goes_on_after_a_restart(path: Path) -> None:
    """The next record follows the last one, of the same writer."""
    lines = write_log(path, 3)
    file = LogFile.open(path)
    assert file.head == unseal(lines[-1]).link
    assert file.unreadable is None
    file.append(sealed(file, 2))
    file.close()
    verdict = checked(path)
    assert (verdict.ok, verdict.records, verdict.torn) == (True, 5, 0)


@given(st.data())
def test_a_torn_tail_is_kept_and_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Wherever a crash cuts the log: not a byte is lost, the chain goes on, and the log verifies."""
    path = tmp_path_factory.mktemp("torn") / "audit.jsonl"
    lines = write_log(path, 3)
    whole = b"".join(lines)
    length = data.draw(st.integers(1, len(whole)))
    path.write_bytes(whole[:length])
    file = LogFile.open(path)
    file.append(sealed(file, 1))
    file.close()
    ends = {sum(map(len, lines[:number])) for number in range(1, 4)}
    after = path.read_bytes()
    verdict = checked(path, file.head)
    assert after.startswith(whole[:length])
    assert (verdict.ok, verdict.torn) == (True, int(length not in ends and length + 1 not in ends))


@given(st.binary(min_size=1).filter(lambda junk: junk.strip(b"\n \t\r") != b""))
def test_junk_at_the_end_is_kept_and_accounted_for(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes
) -> None:
    """Also bytes that no crash explains stay where they are, and become part of the chain."""
    path = tmp_path_factory.mktemp("junk") / "audit.jsonl"
    before = b"".join(write_log(path, 2))
    path.write_bytes(before + junk)
    file = LogFile.open(path)
    file.append(sealed(file, 1))
    file.close()
    assert path.read_bytes().startswith(before + junk)
    assert (checked(path).ok, checked(path).torn) == (True, 1)


def test_a_long_torn_tail_is_searched_in_growing_steps(path: Path) -> None:
    """Zeros as a power cut leaves them, more than one step long, don't hide the last record."""
    write_log(path, 2)
    with path.open("ab") as file:
        file.write(bytes(300_000))
    log = LogFile.open(path)
    assert log.head.seq == 2
    assert log.unreadable is not None
    assert log.unreadable.bytes == 300_001
    log.append(sealed(log, 1))
    log.close()
    assert checked(path).ok


@given(st.lists(st.integers(0, 900), min_size=1, max_size=6))
def test_a_full_disk_breaks_no_chain(tmp_path_factory: pytest.TempPathFactory, rooms: list[int]) -> None:
    """However few bytes the disk takes, again and again: what is said to be written is, in order, and verifies."""
    path = tmp_path_factory.mktemp("full") / "audit.jsonl"
    file = LogFile.open(path)
    written = 0
    for room in rooms:
        size = path.stat().st_size
        lines = sealed(file, 2)
        with disk_with(size + room):
            count, error = file.append(lines)
        assert error is not None or count == len(lines)
        assert path.stat().st_size <= size + room
        written += count
    lines = sealed(file, 2)
    assert file.append(lines) == (len(lines), None)
    file.close()
    verdict = checked(path, file.head)
    assert (verdict.ok, verdict.records, verdict.proven) == (True, written + len(lines), file.head.seq)


def test_a_reopened_log_goes_on_after_a_full_disk(path: Path) -> None:
    """A process that dies while the disk is full leaves fragments that the next one accounts for."""
    file = LogFile.open(path)
    file.append(sealed(file, 1))
    for _ in range(3):
        with disk_with(path.stat().st_size + 20):
            assert file.append(sealed(file, 1))[0] == 0
    file.close()
    again = LogFile.open(path)
    assert again.head.seq == 1
    again.append(sealed(again, 1))
    again.close()
    assert (checked(path).ok, checked(path).torn, checked(path).records) == (True, 1, 3)


def test_a_deleted_log_takes_no_more_records(path: Path) -> None:
    """Writing fails if the file was deleted, because a record there could not be found."""
    file = LogFile.open(path)
    path.unlink()
    count, error = file.append(sealed(file, 1))
    assert count == 0
    assert error is not None
    assert "deleted" in str(error.strerror)
    file.close()


def test_a_device_that_is_always_full_takes_nothing() -> None:
    """The kernel's own full disk: nothing is written, and the head stays where it was."""
    file = LogFile.open(Path("/dev/full"))
    before = file.head
    count, error = file.append(sealed(file, 2))
    assert (count, file.head, file.unreadable) == (0, before, None)
    assert error is not None
    file.close()


def test_an_append_only_file_is_enough(path: Path) -> None:
    """Nothing but appending is ever asked of the file: with the append-only attribute it works, torn or not."""
    write_log(path, 2)
    with path.open("ab") as torn:
        torn.write(b'{"@timestamp":"2026')
    attribute = subprocess.run(["chattr", "+a", str(path)], capture_output=True, check=False)
    if attribute.returncode:
        pytest.skip("this file system or user has no append-only attribute")
    try:
        file = LogFile.open(path)
        with disk_with(path.stat().st_size + 30):
            file.append(sealed(file, 1))
        assert file.append(sealed(file, 1))[1] is None
        file.close()
    finally:
        subprocess.run(["chattr", "-a", str(path)], check=True)
    assert (checked(path).ok, checked(path).torn) == (True, 1)
