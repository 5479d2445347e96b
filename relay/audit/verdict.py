"""What a check of an audit log found: the first damage, or up to where the log is whole."""

from dataclasses import dataclass, replace
from enum import StrEnum

from relay.audit.chain import Link
from relay.core.quantities import counted


class Kind(StrEnum):
    """The kinds of damage that a log can have."""

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
    """The first damage: its line, counted from 1, and a sentence.

    Of the log, the sentence quotes nothing but numbers, so that it can be printed on any terminal. `file` is the index
    of the given file.
    """

    kind: Kind
    line: int
    sentence: str
    file: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """The result of a check. If there is a problem, the counts cover the records before it."""

    ok: bool
    records: int
    last: Link | None
    """The link of the last good record: the head to keep in another place."""
    proven: int
    """The last record that the given head proves, 0 without a head."""
    lost: int
    """Lost events that gap records report."""
    torn: int
    """Torn lines that a gap record accounts for."""
    unclean: int
    """How often the log's writer died without closing the log."""
    began: int
    """The first given record: more than 1 if older files were deleted or not given."""
    oldest: int
    """The first record that the log still had, as its last checkpoint says."""
    signed: int | None
    """The last record that a checkpoint signs; None if no keys were given."""
    closed: bool
    """Whether the last record says that its writer stopped in order."""
    problem: Problem | None

    def followed_by(self, rest: "Verdict") -> "Verdict":
        """Return the verdict on both, if this is good and `rest` is that on what follows."""
        return replace(
            rest,
            records=self.records + rest.records,
            proven=rest.proven or self.proven,
            lost=self.lost + rest.lost,
            torn=self.torn + rest.torn,
            unclean=self.unclean + rest.unclean,
            began=self.began,
        )

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
            known.append(f"with {counted(self.unclean, 'end')} without closing, marked in the log")
        if self.torn:
            known.append(
                f"with {counted(self.torn, 'torn line')} after a crash or a full disk, accounted for"
            )
        if self.lost:
            known.append(f"with {counted(self.lost, 'event')} reported as lost")
        if not self.proven:
            known.append("end unproven (--head with a head kept elsewhere proves it)")
        elif self.proven == self.last.seq:
            known.append("and that is its end, as the given head proves")
        else:
            known.append(f"proven up to record {self.proven}, end unproven")
        return ", ".join(known)
