"""The page: its sections, in the order in which an auditor asks."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

from relay import __version__
from relay.audit.anomalies import ANOMALY_EXPLANATIONS, Anomaly
from relay.audit.report.charts import chart, days
from relay.audit.report.markup import Html, Piece, page, tag
from relay.audit.report.style import STYLE
from relay.audit.verdict import Verdict
from relay.core.errors import EXPLANATIONS, Reason
from relay.core.events import Action
from relay.core.quantities import counted

if TYPE_CHECKING:
    from relay.audit.index.findings import Findings
    from relay.audit.index.privileges import GrantUse

_MOST_ROWS = 500
"""Rows of a table. A sentence says how many more there are."""
_UNBROKEN = frozenset(
    {
        "at",
        "last",
        "file",
        "chain",
        "action",
        "reason",
        "mark",
        "role",
        "endpoint",
        "asked for",
        "refused because",
    }
)
_SHORT = len("2026-11-26T09:00:00.000Z")
"""A text of these columns is on one line, unless it is longer than a time, as a long name or a forged one is."""
_TOP = 10
"""Users and addresses that were refused most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenChain:
    """What a check of a chain found: the name of its file, and how it ended."""

    file: str
    verdict: Verdict
    end: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The days of the report, in UTC. `since` and `until` are its exact bounds as texts."""

    since: str
    until: str
    first: date
    last: date


def report_page(found: "Findings", chains: Sequence[ProvenChain], *, span: Span, made_at: str) -> str:
    """Return the whole page. `made_at` is the time of the check of the log, and of the page."""
    title = f"Audit report {span.first} to {span.last}"
    return page(
        title,
        STYLE,
        tag(
            "main",
            tag(
                "header",
                tag("h1", title),
                tag(
                    "p",
                    *(
                        "Records from ",
                        _on_one_line(span.since),
                        " to ",
                        _on_one_line(span.until),
                        ". Made at ",
                    ),
                    *(_on_one_line(made_at), f" by relay {__version__}. All times are in UTC."),
                ),
                _extent(found, span),
            ),
            _summary(found, chains),
            _proof(found, chains),
            _gaps(found),
            _charts(found, span),
            _scopes(found),
            _refusals(found),
            _anomalies(found),
            _administrators(found),
        ),
    )


def _extent(found: "Findings", span: Span) -> Html:
    """Say which records there are in the span: days before the log began look like days without events."""
    stats = found.stats
    if not stats.records:
        return tag("p", "The log has no record of this span.")
    says = tag(
        "p",
        f"The log has {stats.records:,} records of this span, from ",
        *(_on_one_line(stats.first), " to ", _on_one_line(stats.last), "."),
    )
    if found.known.begins <= span.since:
        return says
    return tag(
        "div",
        says,
        tag(
            "p",
            "The log begins only at ",
            _on_one_line(found.known.begins),
            ". Of the time before, it knows nothing.",
        ),
    )


def _summary(found: "Findings", chains: Sequence[ProvenChain]) -> Html:
    actions = found.stats.actions
    damaged = sum(not one.verdict.ok for one in chains)
    is_empty = all(one.verdict.last is None for one in chains)
    state = "damaged" if damaged else ("empty" if is_empty else "whole")
    unused = sum(not grant.connections for grant in found.grants)
    facts = (
        ("the log", state, "bad" if damaged else ("" if is_empty else "good")),
        ("tokens issued", actions[Action.TOKEN_ISSUED], ""),
        ("connections", actions[Action.CONNECT_ACCEPTED], ""),
        ("grants never used", f"{unused:,} of {len(found.grants):,}", ""),
        ("refusals", found.stats.refusals.total(), ""),
        ("anomaly marks", found.marks.total(), "bad" if found.marks else ""),
        ("changes by administrators", found.changes_in_all, ""),
        ("events lost", found.missing.lost, "bad" if found.missing.lost else ""),
    )
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", _number(value), class_=style))
            for name, value, style in facts
        ),
        class_="facts",
    )


def _proof(found: "Findings", chains: Sequence[ProvenChain]) -> Html:
    rows: list[Sequence[Piece]] = [
        (
            one.file,
            tag("span", f"{one.verdict}{one.end}", class_="good" if one.verdict.ok else "bad"),
            one.verdict.records,
            "not checked"
            if one.verdict.signed is None
            else (f"record {one.verdict.signed}" if one.verdict.signed else "nowhere"),
            tag("code", str(one.verdict.last)) if one.verdict.last else "no record",
        )
        for one in chains
    ]
    is_signature_checked = all(one.verdict.signed is not None for one in chains)
    known = ", ".join(f"{writer}: record {seq}" for writer, seq in found.known.last.items())
    return _section(
        "Proof that the log is whole",
        "The whole log was read again for this page, not only the records of its span. Each record has the hash of the "
        "one before it. A head is the chain's last hash: keep it in another place.",
        _table(("file", "verdict", "records", "signed up to", "head"), rows, right=("records",)),
        "" if is_signature_checked else tag("p", "No signature was checked: no --keys were given."),
        tag(
            "p",
            "Later, ",
            tag("code", "relay audit verify --head HEAD"),
            " proves that the log still begins with what this page is about. All counts below are of records up to ",
            tag("code", known),
            ".",
        )
        if known
        else "",
    )


def _gaps(found: "Findings") -> Html:
    rows: list[Sequence[Piece]] = []
    for record in found.gaps:
        own = record.relay
        says = [f"{count:,} {action} could not be recorded" for action, count in own.lost.items()]
        says += [f"another program cut off {counted(own.cut, 'byte')}"] if own.cut else []
        says += ["the relay before this one ended without closing the log"] if own.unclean_end else []
        rows.append((record.at, own.chain.writer, own.chain.seq, "; ".join(says) or "nothing is missing"))
    holes = [
        ("Lines of the whole log that are no record", found.missing.unreadable),
        ("Records that are missing between others of the log", found.missing.absent),
    ]
    return _section(
        "Gaps",
        "What the log does not have: as it says itself, and as its records show.",
        *(tag("p", f"{what}: {count:,}.", class_="bad") for what, count in holes if count),
        _table(
            ("at", "chain", "record", "what is missing"),
            rows,
            right=("record",),
            in_all=found.gaps_in_all,
            nothing="No gap in this span.",
        ),
    )


def _charts(found: "Findings", span: Span) -> Html:
    bars = days(span.first, span.last)
    return _section(
        "By day",
        "",
        tag(
            "div",
            chart("Tokens issued", found.tokens_by_day, bars, style="tokens"),
            chart("Refusals", found.refusals_by_day, bars, style="refusals"),
            class_="pairs",
        ),
    )


def _scopes(found: "Findings") -> Html:
    unused = [grant for grant in found.grants if not grant.connections]
    used = [grant for grant in found.grants if grant.connections]
    return _section(
        "Scopes",
        "The channels and patterns of issued tokens, by the roles that granted them. A connection uses one when it "
        "subscribes. Tokens of other services have no channels; their use is in that service's log. "
        "Refusals that were only counted have no endpoint and no user.",
        tag("h3", "Granted and never used"),
        _table(
            ("role", "endpoint", "scope", "tokens", "users"),
            [(one.whose, one.endpoint, one.scope, one.tokens, one.users) for one in unused],
            right=("tokens", "users"),
            nothing="Every grant was used." if used else "No token was issued.",
        ),
        tag("h3", "Granted and used"),
        _table(
            ("role", "endpoint", "scope", "tokens", "users", "connections", "used by"),
            [_used(one) for one in used],
            right=("tokens", "users", "connections", "used by"),
            nothing="No grant was used.",
        ),
        tag("h3", "Requested and not granted"),
        _table(
            ("asked for", "endpoint", "reason", "count", "users", "meaning"),
            [
                (one.asked_for, one.endpoint, one.reason, one.count, one.users or "", _reason(one.reason))
                for one in found.not_granted
            ],
            right=("count", "users"),
            nothing="Everything that was asked was granted." if found.grants else "No token was issued.",
        ),
    )


def _used(one: "GrantUse") -> Sequence[Piece]:
    return one.whose, one.endpoint, one.scope, one.tokens, one.users, one.connections, one.used_by


def _refusals(found: "Findings") -> Html:
    stats = found.stats
    return _section(
        "Refusals",
        "Requests, connections, subscriptions and calls that were refused, with those that were only counted.",
        _table(
            ("action", "reason", "count", "meaning"),
            [
                (action, reason, count, _reason(reason))
                for (action, reason), count in stats.refusals.most_common()
            ],
            right=("count",),
            nothing="Nothing was refused.",
        ),
        tag(
            "div",
            _most("Refused most: users", "user", stats.users.most_common(_TOP)),
            _most("Refused most: addresses", "address", stats.addresses.most_common(_TOP)),
            class_="pairs",
        ),
    )


def _most(title: str, name: str, counts: Sequence[tuple[str, int]]) -> Piece:
    if not counts:
        return ""
    return tag("div", tag("h3", title), _table((name, "count"), counts, right=("count",)))


def _anomalies(found: "Findings") -> Html:
    explained = {mark.value: sentence for mark, sentence in ANOMALY_EXPLANATIONS.items()}
    return _section(
        "Replays and other anomalies",
        "Marks of what looks like theft or an attack. A mark refuses nothing by itself.",
        _table(
            ("mark", "records", "meaning"),
            [
                (mark, found.marks[mark], explained.get(mark, ""))
                for mark in dict.fromkeys([*map(str, Anomaly), *sorted(found.marks)])
            ],
            right=("records",),
        ),
        _table(
            ("at", "marks", "what", "who", "token and browser"),
            [
                (
                    one.at,
                    _lines(*one.marks),
                    _lines(one.action, one.reason),
                    _lines(one.user, one.address),
                    tag("div", tag("code", one.jti), tag("small", one.user_agent)),
                )
                for one in found.marked
            ],
            is_cut=sum(found.marks.values()) > len(found.marked) >= _MOST_ROWS,
            nothing="There are no anomalies.",
        ),
    )


def _administrators(found: "Findings") -> Html:
    return _section(
        "Administrators",
        "",
        tag("h3", "Revocations, changes of keys, reloads, and calls that change something"),
        _table(
            ("at", "operator", "action", "what", "address"),
            [(one.at, one.who or "(none)", one.action, one.what, one.address) for one in found.changes],
            in_all=found.changes_in_all,
            nothing="Nothing was changed.",
        ),
        tag("h3", "Other calls of operators"),
        _table(
            ("operator", "call", "refused because", "count", "last"),
            [
                (one.operator or "(without a key)", one.call, one.reason, one.count, one.last)
                for one in found.calls
            ],
            right=("count",),
            nothing="No operator called.",
        ),
    )


def _reason(name: str) -> str:
    return EXPLANATIONS.get(Reason(name), "") if name in set(Reason) else ""


def _section(title: str, says: str, *pieces: Piece) -> Html:
    return tag("section", tag("h2", title), tag("p", says) if says else "", *pieces)


def _table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Piece]],
    *,
    right: Sequence[str] = (),
    nothing: str = "",
    in_all: int | None = None,
    is_cut: bool = False,
) -> Html:
    """Return a table. `in_all` are the rows that there are, if not all of them were read."""
    if not rows:
        return tag("p", nothing, class_="nothing")
    shown = rows[:_MOST_ROWS]
    beyond = (len(rows) if in_all is None else in_all) - len(shown)
    more = f"{beyond:,} more are not shown." if beyond > 0 else ""
    if is_cut:
        more = f"The newest {len(shown):,} are shown."

    def cells(kind: str, values: Iterable[Piece]) -> Iterable[Html]:
        for column, value in zip(columns, values, strict=True):
            style = "right" if column in right else ""
            if column in _UNBROKEN and isinstance(value, str) and len(value) <= _SHORT:
                style = "unbroken"
            yield tag(kind, _number(value), **({"class_": style} if style else {}))

    body = tag("tbody", *(tag("tr", *cells("td", row)) for row in shown))
    table = tag("table", tag("thead", tag("tr", *cells("th", columns))), body)
    return tag(
        "div",
        tag("div", table, class_="scroll", tabindex=0, role="region", aria_label=", ".join(columns)),
        tag("p", more, class_="nothing") if more else "",
    )


def _lines(*texts: str) -> Html:
    """Return texts one below the other, each on one line if it is short."""
    return tag(
        "div",
        *(
            tag("div", text, **({"class_": "unbroken"} if len(text) <= _SHORT else {}))
            for text in texts
            if text
        ),
    )


def _on_one_line(text: str) -> Html:
    return tag("span", text, class_="unbroken")


def _number(value: Piece) -> Piece:
    return f"{value:,}" if isinstance(value, int) else value
