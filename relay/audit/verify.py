"""The check of an audit log, line by line, in constant memory. Pure.

It names the first line that is not as it was written. If a log was rewritten from some record on, the signature of the
next checkpoint shows it. No log can prove its own end: without a head (`Link`) from another place, a log that was cut
off, or rewritten below the last checkpoint, looks whole.

A log in several files is one chain. The first given file may begin with a later record only if that record is the
checkpoint of a rotation.

A line that is no record is accepted only if a crash can have left it and the next record accounts for its bytes (see
`logfile`). A record with a wrong hash is never accepted, because no crash makes one.
"""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from relay.audit.chain import GENESIS, MAX_LINE, Link, Sealed, is_intact, parsed_lines, unseal
from relay.audit.checkpoints import EVERY, Moment, is_genuine
from relay.audit.verdict import Kind, Problem, Verdict
from relay.core.errors import MalformedError
from relay.core.events import Action
from relay.core.jws import VerifyKey
from relay.core.quantities import counted

_BATCH = 32
"""Lines that are parsed in one call. Few, because each can have `MAX_LINE` bytes."""

_BUFFER = 256 << 10

_SPECIAL = frozenset({Action.AUDIT_GAP.value, Action.AUDIT_CHECKPOINT.value})
"""Records whose details are part of the check."""


def open_log(path: Path) -> BinaryIO:
    """Open a file of a log, to read all its lines: with the usual buffer, a seventh line is a system call.

    Raises:
        OSError: if it can't be opened.
    """
    return path.open("rb", buffering=_BUFFER)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Return the lines of `file` for `verify`. A line that is too long comes in pieces, so that memory is bounded."""
    return iter(partial(file.readline, MAX_LINE + 1), b"")


def verify(lines: Iterable[bytes], *, head: Link | None = None) -> Verdict:
    """Check a log of one file, without its signatures. See `verify_files`."""
    return verify_files([lines], head=head)


def verify_files(
    files: Iterable[Iterable[bytes]],
    *,
    head: Link | None = None,
    keys: Mapping[str, VerifyKey] | None = None,
) -> Verdict:
    """Check a log. A file is its lines with their newlines; the files are in the order of their records.

    `head` is the last known link of the log. `keys` are the keys that may sign checkpoints; with None, signatures are
    not checked. If the verdict has no `problem`, the log is whole up to `last`.
    """
    return verify_parts(
        [Part(None, enumerate(files))], is_ours=lambda: True, others=lambda: None, head=head, keys=keys
    )


class Part(NamedTuple):
    """A part of a log: the checkpoint before it, and its lines by file. The last file may continue in the next part."""

    begin: Sealed | None
    files: Iterable[tuple[int, Iterable[bytes]]]


def verify_parts(
    parts: Iterable[Part],
    *,
    is_ours: Callable[[], bool],
    others: Callable[[], Verdict | None],
    head: Link | None = None,
    keys: Mapping[str, VerifyKey] | None = None,
) -> Verdict:
    """Check a log as `verify_files` does, without the parts at its end that another process checks.

    `is_ours` is asked before each part but the first. If it says no, `others` returns what `verify_last_parts` said of
    that part and all that follow. That counts only if the parts before lead to the checkpoint as it stands; otherwise
    they are read here.
    """
    check = _Check(head, keys)
    remaining = iter(parts)
    is_shared = True
    for part in remaining:
        if is_shared and part.begin is not None and not is_ours():
            verdict = others()
            if verdict is not None and check.is_after(part.begin):
                return check.verdict().followed_by(verdict)
            is_shared = False
        beginning = _numbered(part.files)
        left = _add(check, beginning)
        if check.problem is not None:
            rest = _numbered(file for later in remaining for file in later.files)
            return _verdict(check, chain(beginning, rest), left=left)
    return _verdict(check, ())


def verify_last_parts(
    parts: Sequence[Part],
    *,
    is_ours: Callable[[], bool],
    head: Link | None = None,
    keys: Mapping[str, VerifyKey] | None = None,
) -> Verdict | None:
    """Check parts from the end on, for as long as `is_ours` says so. Return None if one is not good, or none is ours.

    Whether the log leads to them is not checked.
    """
    verdict, end = None, None
    for part in reversed(parts):
        if part.begin is None or not is_ours():
            return verdict
        found = _verify_between(part.begin, (lines for _, lines in part.files), end, head=head, keys=keys)
        if found is None:
            return None
        verdict, end = found if verdict is None else found.followed_by(verdict), part.begin
    return verdict


def _verify_between(
    begin: Sealed,
    files: Iterable[Iterable[bytes]],
    end: Sealed | None,
    *,
    head: Link | None,
    keys: Mapping[str, VerifyKey] | None,
) -> Verdict | None:
    """Check what follows the checkpoint `begin`, up to the checkpoint `end`, or with None to the end of the log.

    Return None if it is not good. Whether the log leads to `begin` is not checked.
    """
    check = _Check(head, keys)
    check.resume(begin)
    _add(check, _numbered(enumerate(files)))
    if end is None and check.problem is None:
        check.end()
    is_good = check.problem is None and (end is None or check.is_after(end))
    return check.verdict() if is_good else None


def _numbered(files: Iterable[tuple[int, Iterable[bytes]]]) -> Iterator[tuple[int, list[bytes]]]:
    return ((number, batch) for number, lines in files for batch in _batches(lines))


def _add(check: "_Check", batches: Iterator[tuple[int, list[bytes]]]) -> Sequence[bytes]:
    """Add lines until there is a problem. Return those of its batch that follow it."""
    left: Sequence[bytes] = ()
    for number, batch in batches:
        if number != check.file:
            check.begin_file(number)
        if check.problem is None:
            left = check.add_all(batch)
        if check.problem is not None:
            return left
    return ()


def _verdict(
    check: "_Check", rest: Iterable[tuple[int, list[bytes]]], *, left: Sequence[bytes] = ()
) -> Verdict:
    """Say what was found. `left` and `rest` follow a problem and were not read."""
    if check.problem is None:
        check.end()
    if check.missing is not None:
        check.find_missing(chain(left, (line for _, batch in rest for line in batch)))
    return check.verdict()


def _batches(lines: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(lines)
    return iter(lambda: list(islice(remaining, _BATCH)), [])


class _Unread:
    """Consecutive lines that are no record: the problem of the first, and the size and hash of all their bytes."""

    def __init__(self, line: int, kind: Kind, sentence: str, *, file: int) -> None:
        self.problem = Problem(kind=kind, line=line, sentence=sentence, file=file)
        self.forgivable = True
        self.pieces = 0
        self.size = 0
        self.hash = hashlib.sha256()

    def add(self, data: bytes, *, forgivable: bool) -> None:
        self.pieces += 1
        self.size += len(data)
        self.hash.update(data)
        self.forgivable = self.forgivable and forgivable


class _Check:
    """The state of the check between two lines."""

    def __init__(self, head: Link | None, keys: Mapping[str, VerifyKey] | None) -> None:
        self.records = self.proven = self.lost = self.torn = self.unclean = 0
        self.began = self.oldest = 1
        self.signed = 0
        self.closed = False
        self.file = 0
        self.last: Link | None = None
        self.problem: Problem | None = None
        self.missing: tuple[str, range] | None = None
        """Writer and numbers of records that are missing here: they were deleted, or stand further down."""
        self._head = head
        self._keys = keys
        self._line = 1
        self._last_line = 0
        self._last_prev = GENESIS
        self._unread: _Unread | None = None
        self._ended = True

    def resume(self, boundary: Sealed) -> None:
        """Continue after a checkpoint, as if what stands before it were good."""
        self._accept(boundary)
        self.records = self.proven = 0

    def is_after(self, boundary: Sealed) -> bool:
        """Tell whether this check stands where `resume` would continue."""
        is_between = self._unread is None and self._ended
        return is_between and self.last == boundary.link and self._last_prev == boundary.prev

    def verdict(self) -> Verdict:
        """Return what was found."""
        return Verdict(
            ok=self.problem is None,
            records=self.records,
            last=self.last,
            proven=self.proven,
            lost=self.lost,
            torn=self.torn,
            unclean=self.unclean,
            began=self.began,
            oldest=self.oldest,
            signed=None if self._keys is None else self.signed,
            closed=self.closed,
            problem=self.problem,
        )

    def begin_file(self, number: int) -> None:
        """Continue with the next file. The file before must have ended with a whole line."""
        if not self._ended:
            self._torn_end()
        else:
            self.file, self._line = number, 1

    def add_all(self, lines: Sequence[bytes]) -> Sequence[bytes]:
        """Check the next lines. Return those that follow the first problem.

        A plain record that follows the one before is accepted here. Everything else is left to `add`, and this accepts
        nothing that `add` would not.
        """
        at = 0
        while at < len(lines) and self.problem is None:
            if self.last is not None and self._unread is None and self._ended:
                at += self._add_plain(lines[at:], self.last)
            if at < len(lines):
                self.add(lines[at])
                at += 1
        return lines[at:]

    def _add_plain(self, lines: Sequence[bytes], last: Link) -> int:
        """Accept the plain records at the beginning of `lines`, and return how many they are."""
        records = parsed_lines(lines)
        if records is None:
            return 0
        writer, seq, hash_, prev = last.writer, last.seq, last.hash, self._last_prev
        most = self._most_unchecked(last)
        count = 0
        for line, record in zip(lines, records, strict=True):
            link = record.relay.chain
            if (
                link.prev != hash_
                or link.seq != seq + 1
                or link.writer != writer
                or record.event.action in _SPECIAL
                or link.seq > most
                or not is_intact(line, link)
            ):
                break
            seq, hash_, prev = link.seq, link.hash, link.prev
            count += 1
        if count:
            self.closed = False
            self.records += count
            self._line += count
            self.last, self._last_line, self._last_prev = Link(writer, seq, hash_), self._line - 1, prev
        return count

    def _most_unchecked(self, last: Link) -> float:
        """Return the last record at which neither the head nor a missing checkpoint has to be looked at."""
        most = math.inf
        if self._keys is not None:
            most = EVERY + (self.signed or self.began - 1)
        if self._head is not None:
            if self._head.writer != last.writer:
                return 0
            if self._head.seq > last.seq:
                most = min(most, self._head.seq - 1)
        return most

    def add(self, line: bytes) -> None:
        """Check the next line."""
        self._ended = line.endswith(b"\n")
        try:
            sealed = unseal(line)
        except MalformedError:
            self._keep_unread(line, Kind.MALFORMED, "this is not a record of an audit log.")
        else:
            if sealed.intact:
                self._check_link(sealed)
            else:
                self._keep_unread(
                    line, Kind.MODIFIED, "this record was modified, its hash does not fit what it says now."
                )
        self._line += self._ended

    def end(self) -> None:
        """Check the end, after the last line."""
        if self._unread is not None:
            self.problem = self._unread.problem
            if not self._ended and self._unread.pieces == 1 and self._unread.forgivable:
                self._torn_end()
        elif not self._ended:
            self._torn_end()
        elif self._head is not None and (self.last is None or self.last.seq < self._head.seq):
            self._fail(
                Kind.CUT_OFF,
                f"the log ends before record {self._head.seq}, which the given head names; it was cut off.",
            )

    def find_missing(self, rest: Iterable[bytes]) -> None:
        """Decide whether the missing records were deleted or moved down: look for them in the rest of the log."""
        if self.missing is None or self.problem is None:
            return
        writer, numbers = self.missing
        for line in rest:
            try:
                sealed = unseal(line)
            except MalformedError:
                continue
            if sealed.intact and sealed.link.writer == writer and sealed.link.seq in numbers:
                sentence = (
                    f"this record stands before record {sealed.link.seq}, which comes later; "
                    "they were reordered."
                )
                self.problem = replace(self.problem, kind=Kind.REORDERED, sentence=sentence)
                return

    def _keep_unread(self, line: bytes, kind: Kind, sentence: str) -> None:
        """Remember a line that is no record, until the next record accounts for it or not."""
        if self._unread is None:
            self._unread = _Unread(self._line, kind, sentence, file=self.file)
        self._unread.add(line, forgivable=kind is Kind.MALFORMED)

    def _check_link(self, sealed: Sealed) -> None:
        """Check the link of an intact record."""
        before = self.last or _before(sealed)
        accounted = self._accounted(sealed)
        is_cut = sealed.gap is not None and sealed.gap.cut > 0
        if self._unread is not None and not ((sealed.follows(before) or is_cut) and accounted):
            self.problem = self._unread.problem
        elif not sealed.follows(before):
            self._misplaced(sealed, before)
        elif not accounted:
            self._fail(Kind.DELETED, "the torn line that this record accounts for is missing before it.")
        elif self._keys is not None and (sentence := self._unsigned(sealed, self._keys)):
            self._fail(Kind.BAD_CHECKPOINT, sentence)
        elif self._head is not None and not self._fits_head(sealed.link):
            self._fail(
                Kind.REWRITTEN, "this record is not the one that the given head names; it was rewritten."
            )
        else:
            self._accept(sealed)

    def _accept(self, sealed: Sealed) -> None:
        self.records += 1
        if self.last is None:
            self.began = sealed.link.seq
        self.closed = sealed.checkpoint is not None and sealed.checkpoint.moment is Moment.CLOSED
        if sealed.checkpoint is not None:
            self.signed, self.oldest = sealed.link.seq, sealed.checkpoint.oldest
        self.last, self._last_line, self._last_prev = sealed.link, self._line, sealed.prev
        if sealed.link == self._head:
            self.proven = sealed.link.seq
        if self._unread is not None:
            self.torn += 1
            self._unread = None
        if sealed.gap is not None:
            self.lost += sum(sealed.gap.lost.values())
            self.unclean += sealed.gap.unclean_end

    def _unsigned(self, sealed: Sealed, keys: Mapping[str, VerifyKey]) -> str | None:
        """Return what is wrong with the signatures at this record, or None."""
        seq, checkpoint = sealed.link.seq, sealed.checkpoint
        if checkpoint is not None:
            before = Link(sealed.link.writer, seq - 1, sealed.prev)
            if is_genuine(checkpoint, keys, head=str(before), at=sealed.at):
                return None
            if checkpoint.kid not in keys:
                return "this checkpoint is signed with a key that is not among those given."
            return (
                f"this checkpoint's signature does not fit: the records between {self.signed} and this one "
                "were rewritten."
            )
        since = self.signed or self.began - 1
        if seq - since > EVERY:
            return f"more than {EVERY} records stand here without a checkpoint; it was taken out, or never written."
        return None

    def _accounted(self, sealed: Sealed) -> bool:
        """Return whether the torn bytes since the last record are those that this one names."""
        named = None if sealed.gap is None else sealed.gap.unreadable
        unread = self._unread
        if unread is None or named is None:
            return unread is None and named is None
        return unread.forgivable and (named.bytes, named.sha256) == (unread.size, unread.hash.hexdigest())

    def _fits_head(self, link: Link) -> bool:
        head = self._head
        return head is None or (link.writer == head.writer and (link.seq != head.seq or link == head))

    def _misplaced(self, sealed: Sealed, before: Link) -> None:
        """Report why an intact record can't stand here."""
        link, expected = sealed.link, before.seq + 1
        if link.writer != before.writer:
            self._fail(Kind.INSERTED, "this record belongs to another log.")
        elif link.seq > expected:
            gone = (
                f"record {expected}" if link.seq == expected + 1 else f"records {expected} to {link.seq - 1}"
            )
            verb = "is" if link.seq == expected + 1 else "are"
            sentence = f"{gone} {verb} missing before this one (record {link.seq})."
            if sealed.gap is not None and sealed.gap.cut:
                sentence += (
                    f" It says that another program cut {counted(sealed.gap.cut, 'byte')} off the file while the relay "
                    "was writing, as logrotate's copytruncate does: give the copy before this file."
                )
            self.missing = (link.writer, range(expected, link.seq))
            self._fail(Kind.DELETED, sentence)
        elif link == before:
            self._fail(Kind.INSERTED, f"record {link.seq} stands here a second time.")
        elif link.seq == before.seq and sealed.prev == self._last_prev:
            self._fail(
                Kind.INSERTED,
                f"lines {self._last_line} and {self._line} both claim to be record {link.seq}; "
                "one of them was put in.",
                line=self._last_line,
            )
        elif link.seq < expected:
            self._fail(Kind.REORDERED, f"record {link.seq} stands here, after record {before.seq}.")
        elif before.seq == 0:
            self._fail(
                Kind.MODIFIED,
                "the first record does not begin a chain; it was modified, and the hashes were computed again.",
            )
        else:
            self._fail(
                Kind.MODIFIED,
                f"record {link.seq} was written after another record {before.seq} than this one, "
                "which was modified, and the hashes were computed again.",
                line=self._last_line,
            )

    def _torn_end(self) -> None:
        self._fail(
            Kind.TORN_END,
            "the last line is not finished: its writer died, or is still writing; "
            "the relay's next start accounts for it.",
        )

    def _fail(self, kind: Kind, sentence: str, *, line: int | None = None) -> None:
        self.problem = Problem(
            kind=kind, line=self._line if line is None else line, sentence=sentence, file=self.file
        )


def _before(sealed: Sealed) -> Link:
    """Return the link that the first given record must follow: the start of a chain, or the end of an older file."""
    checkpoint, link = sealed.checkpoint, sealed.link
    if checkpoint is not None and checkpoint.moment is Moment.ROTATED:
        return Link(link.writer, link.seq - 1, sealed.prev)
    return Link.before_first(link.writer)
