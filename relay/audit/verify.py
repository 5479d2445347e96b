"""Checks an audit log line by line, in constant memory. Pure.

It names the first line that is not as it was written. One that was written anew from some record on is found by the
next checkpoint's signature. What no log can prove of itself is its end: one that was cut off, or written anew below
the last checkpoint, is whole as far as it goes. That takes a head (`Link`) kept elsewhere.

A log in several files is one chain. Only a file that begins with a checkpoint made for that may be the first one
without holding the first record.

A line that is no record is forgiven only where a crash left it and the record after it accounts for its
bytes (see `tail`). A record whose hash is wrong is never forgiven: no crash makes one.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import BinaryIO

from relay.audit.chain import GENESIS, MAX_LINE, Link, Sealed, unseal
from relay.audit.checkpoints import EVERY, Moment, is_genuine
from relay.core.errors import MalformedError
from relay.core.jws import VerifyKey


class Kind(StrEnum):
    """What is wrong with a log."""

    MODIFIED = "modified"
    DELETED = "deleted"
    REORDERED = "reordered"
    INSERTED = "inserted"
    MALFORMED = "malformed"
    TORN_END = "torn_end"
    CUT_OFF = "cut_off"
    BAD_CHECKPOINT = "bad_checkpoint"
    REWRITTEN = "rewritten"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """The first thing wrong: its line, counted from 1, and a sentence without anything from the log in it.

    `file` counts the files that were given from 0.
    """

    kind: Kind
    line: int
    sentence: str
    file: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known about a log. Where there is a problem, the counts cover what comes before it."""

    ok: bool
    records: int
    last: Link | None
    """The last record that was found in its place: the head to keep elsewhere."""
    proven: int
    """Up to which record a head from elsewhere proves the log, 0 without one."""
    lost: int
    """Events that gap records report as lost."""
    torn: int
    """Places with bytes that are no record and that a gap record accounts for."""
    unclean: int
    """Times that the log's writer died instead of closing it."""
    began: int
    """The first record that was given: more than 1 where older files were deleted, or not given."""
    oldest: int
    """The first record that the log kept at its last checkpoint, by its own word."""
    signed: int | None
    """Up to which record checkpoints sign the log, None if no keys were given to check them with."""
    problem: Problem | None

    def __str__(self) -> str:
        if self.problem is not None:
            return f"damaged at line {self.problem.line}: {self.problem.sentence}"
        if self.last is None:
            return "empty: there is no record in it, so nothing is proven"
        known = [f"whole up to record {self.last.seq}"]
        if self.began > 1:
            known[0] = f"whole from record {self.began} up to {self.last.seq}"
        if self.signed is not None:
            known.append(f"signed up to record {self.signed}" if self.signed else "signed nowhere")
        if self.unclean:
            known.append(f"with {self.unclean} end(s) without closing, each of them marked")
        if self.torn:
            known.append(f"with {self.torn} torn line(s) after a crash or a full disk, all accounted for")
        if self.lost:
            known.append(f"with {self.lost} event(s) reported as lost")
        if not self.proven:
            known.append("end unproven (--head with a head kept elsewhere proves it)")
        elif self.proven == self.last.seq:
            known.append("and that is its end, as the given head proves")
        else:
            known.append(f"proven up to record {self.proven}, end unproven")
        return ", ".join(known)


def read_lines(file: BinaryIO) -> Iterator[bytes]:
    """Return the lines of `file` for `verify`. Memory is bounded: a line that is too long comes in pieces."""
    return iter(lambda: file.readline(MAX_LINE + 1), b"")


def verify(lines: Iterable[bytes], *, head: Link | None = None) -> Verdict:
    """Check a log that is one file, without its signatures. See `verify_files`."""
    return verify_files([lines], head=head)


def verify_files(
    files: Iterable[Iterable[bytes]],
    *,
    head: Link | None = None,
    keys: Mapping[str, VerifyKey] | None = None,
) -> Verdict:
    """Check a log. Each file is its lines, cut after each newline, and the files come in the order of their records.

    `head` is the log's last known place, `keys` are those that may sign checkpoints; None: they are not checked.
    Look at `problem`: without one, the log is whole up to `last`.
    """
    check = _Check(head, keys)
    rest = ((number, line) for number, lines in enumerate(files) for line in lines)
    for number, line in rest:
        if number != check.file:
            check.begin_file(number)
        if check.problem is None:
            check.take(line)
        if check.problem is not None:
            break
    else:
        check.end()
    if check.missing is not None:
        check.decide(line for _, line in rest)
    return Verdict(
        ok=check.problem is None,
        records=check.records,
        last=check.last,
        proven=check.proven,
        lost=check.lost,
        torn=check.torn,
        unclean=check.unclean,
        began=check.began,
        oldest=check.oldest,
        signed=None if keys is None else check.signed,
        problem=check.problem,
    )


class _Unread:
    """Lines in a row that are no record: what is wrong with the first, and what all their bytes are."""

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
    """The state between two lines."""

    def __init__(self, head: Link | None, keys: Mapping[str, VerifyKey] | None) -> None:
        self.records = self.proven = self.lost = self.torn = self.unclean = 0
        self.began = self.oldest = 1
        self.signed = 0
        self.file = 0
        self.last: Link | None = None
        self.problem: Problem | None = None
        self.missing: tuple[str, range] | None = None
        """Writer and sequence numbers of records that were jumped over: deleted, or found further down."""
        self._head = head
        self._keys = keys
        self._line = 1
        self._last_line = 0
        self._last_prev = GENESIS
        self._unread: _Unread | None = None
        self._ended = True

    def begin_file(self, number: int) -> None:
        """Go on with the next file: the one before must have ended with a whole line."""
        if not self._ended:
            self._torn_end()
        else:
            self.file, self._line = number, 1

    def take(self, line: bytes) -> None:
        """Check the next line."""
        self._ended = line.endswith(b"\n")
        try:
            sealed = unseal(line)
        except MalformedError:
            self._keep(line, Kind.MALFORMED, "this is not a record of an audit log.")
        else:
            if sealed.intact:
                self._place(sealed)
            else:
                self._keep(
                    line, Kind.MODIFIED, "this record was modified, its hash does not fit what it says now."
                )
        self._line += self._ended

    def end(self) -> None:
        """Check what can only be known once the last line was read."""
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

    def decide(self, rest: Iterable[bytes]) -> None:
        """Tell deleted records from those that were moved down: look for them in the rest of the log."""
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

    def _keep(self, line: bytes, kind: Kind, sentence: str) -> None:
        """Keep in mind a line that is no record until the next record says what it is."""
        if self._unread is None:
            self._unread = _Unread(self._line, kind, sentence, file=self.file)
        self._unread.add(line, forgivable=kind is Kind.MALFORMED)

    def _place(self, sealed: Sealed) -> None:
        """Check an intact record's place in the chain."""
        before = self.last or _before(sealed)
        accounted = self._accounted(sealed)
        if self._unread is not None and not (sealed.follows(before) and accounted):
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
        """Say what is wrong with the signatures at this record, if something is."""
        seq, note = sealed.link.seq, sealed.checkpoint
        if note is not None:
            before = Link(sealed.link.writer, seq - 1, sealed.prev)
            if is_genuine(note, keys, head=str(before), at=sealed.at):
                return None
            if note.kid not in keys:
                return "this checkpoint is signed with a key that is not among those given."
            return (
                f"this checkpoint's signature does not fit: what stands between record {self.signed} and this one "
                "was written anew."
            )
        since = self.signed or self.began - 1
        if seq - since > EVERY:
            return f"more than {EVERY} records stand here without a checkpoint; it was taken out, or never written."
        return None

    def _accounted(self, sealed: Sealed) -> bool:
        """Tell whether the bytes since the last record are those that this one names."""
        named = None if sealed.gap is None else sealed.gap.unreadable
        unread = self._unread
        if unread is None or named is None:
            return unread is None and named is None
        return unread.forgivable and (named.bytes, named.sha256) == (unread.size, unread.hash.hexdigest())

    def _fits_head(self, link: Link) -> bool:
        head = self._head
        return head is None or (link.writer == head.writer and (link.seq != head.seq or link == head))

    def _misplaced(self, sealed: Sealed, before: Link) -> None:
        """Say why an intact record can't stand here."""
        link, expected = sealed.link, before.seq + 1
        if link.writer != before.writer:
            self._fail(Kind.INSERTED, "this record belongs to another log.")
        elif link.seq > expected:
            gone = (
                f"record {expected}" if link.seq == expected + 1 else f"records {expected} to {link.seq - 1}"
            )
            verb = "is" if link.seq == expected + 1 else "are"
            self.missing = (link.writer, range(expected, link.seq))
            self._fail(Kind.DELETED, f"{gone} {verb} missing before this one (record {link.seq}).")
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
                Kind.MODIFIED, "the first record does not begin a chain; it was modified and hashed anew."
            )
        else:
            self._fail(
                Kind.MODIFIED,
                f"record {link.seq} was written after another record {before.seq} than this one, "
                "which was modified and hashed anew.",
                line=self._last_line,
            )

    def _torn_end(self) -> None:
        self._fail(
            Kind.TORN_END,
            "the last line is not finished: its writer died, or is writing just now; the relay's next start "
            "accounts for it.",
        )

    def _fail(self, kind: Kind, sentence: str, *, line: int | None = None) -> None:
        self.problem = Problem(
            kind=kind, line=self._line if line is None else line, sentence=sentence, file=self.file
        )


def _before(sealed: Sealed) -> Link:
    """Return what the first record that is given must follow: nothing, or what an older file ended with."""
    note, link = sealed.checkpoint, sealed.link
    if note is not None and note.moment is Moment.ROTATED:
        return Link(link.writer, link.seq - 1, sealed.prev)
    return Link.before_first(link.writer)
