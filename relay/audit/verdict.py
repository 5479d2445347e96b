"""What `verify` says about an audit log: a verdict, and the first problem if there is one.

The sentences hold nothing from the log but numbers, so that they can be printed on any terminal.
"""

from dataclasses import dataclass
from enum import StrEnum

from relay.audit.chain import Link


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
