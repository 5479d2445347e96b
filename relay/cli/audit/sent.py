"""`relay audit sent`: what a session was sent. `relay audit recipients`: who was sent a message."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from typing import Annotated

import typer

from relay.audit.query.records import RecordReader, Sent, having, iso
from relay.audit.query.sent import Message, Unreported, recipients, sent_to, unreported
from relay.cli.audit.input import FilesOption, Log, query, reported
from relay.cli.audit.known_names import unknown
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.audit.times import LocalOption, parse_span, parse_time
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError
from relay.core.patterns import is_channel

_SENT = ("connection", "user", "channel", "first", "last", "count", "complete", "since", "until", "epoch")
_LISTED = 10
"""Connections that are named, of those whose reports are missing."""
_RECIPIENTS = ("verdict", "user", "session", "address", "since", "until", "connection")


@query
def sent(
    log: Log,
    about: Annotated[
        str, typer.Argument(metavar="NAME", help="A session, a user, a token's jti or a connection's id.")
    ],
    *,
    as_json: JsonOption = False,
) -> None:
    """Show what a session, a user, a token or a connection was sent.

    Each channel has a row for each connection: from which number to which.
    An open connection is reported every ten minutes.
    """
    index = log.index
    from relay.audit.index.questions import Naming, is_named, lines_of_ends, names_like

    rows = [fields_of(row) for row in sent_to(log.reader.records(Naming(index)([about])), about)]
    if not rows and not is_named(index, about):
        raise ConfigurationError(
            unknown("a user, session, token or connection", about, names_like(index, about))
        )
    if not as_json:
        rows = [
            row
            | {"since": log.shown(row["since"]), "until": log.shown(row["until"])}
            | {"complete": "yes" if row["complete"] else "no"}
            | ({} if row["channel"] else {"channel": "(not named: see limits.sent_recorded)"})
            for row in rows
        ]
    nothing = f"The log has no report of what {printable(about)} was sent in this time."
    print_rows(
        rows, as_json=as_json, columns=_SENT, nothing=log.nothing(nothing), right=("first", "last", "count")
    )
    since, _ = index.span
    lacking = [
        one
        for one in unreported(log.to_the_end(RecordReader().records(lines_of_ends(index, about))), about)
        if not one.until or one.until >= since
    ]
    sys.stderr.writelines(_unreported(log, one) for one in lacking[:_LISTED])
    if len(lacking) > _LISTED:
        sys.stderr.write(f"So it is with {len(lacking) - _LISTED:,} more connections.\n")


def _unreported(log: Log, one: Unreported) -> str:
    """Return the line about a connection of which the answer does not have everything."""
    since, until = log.shown(one.since), log.shown(one.until)
    match one.why:
        case "open":
            why = f"from {since} on: it is open, and reported every ten minutes"
        case "killed":
            why = f"from {since} on: its relay was killed before {until}"
        case _:
            why = f"from {since} to {until}: reports are missing in the log"
    return printable(f"Not in this answer: what {one.connection} was sent {why}.") + "\n"


def who_was_sent(
    channel: Annotated[str, typer.Argument(metavar="CHANNEL", help="The channel, without wildcards.")],
    *,
    seq: Annotated[int, typer.Option("--seq", min=0, help="The message's number.")] = 0,
    epoch: Annotated[
        str, typer.Option("--epoch", help="The epoch of the number, if the log has several.")
    ] = "",
    at: Annotated[
        str, typer.Option("--at", help="A time, instead of a number: the messages of that minute.")
    ] = "",
    since: Annotated[
        str,
        typer.Option("--since", help="Only connections that were open from this time on, as 2h or a time."),
    ] = "",
    until: Annotated[str, typer.Option("--until", help="Only connections that began up to this time.")] = "",
    local: LocalOption = False,
    as_json: JsonOption = False,
    file: FilesOption = None,
    config: ConfigOption = None,
) -> None:
    """Show who was sent a message, who may have been, and who was not.

    It never says who saw it. With --at, `was sent` means every message that was published in that minute.
    """
    if not is_channel(channel):
        raise ConfigurationError(f"{printable(channel)!r} is no channel. Give one without wildcards.")
    if bool(seq) == bool(at):
        raise ConfigurationError("Give --seq, the message's number, or --at, a time: one of the two.")
    begin, end = parse_span(since, until, local=local)
    with reported(Log(file=file, config=config, local=local)) as log:
        index = log.index
        from relay.audit.index.publications import minutes_of
        from relay.audit.index.questions import keys_of_channel, lines_of_reports, lines_of_subscribers

        minutes, keys = minutes_of(index, channel), keys_of_channel(index, channel)
        if at:
            moment = parse_time(at, option="--at", local=local)
            messages = _of_minute(minutes, iso(moment), channel)
        else:
            names_it, has_rows = having(channel), having("sent")
            reports = RecordReader().records(
                lines_of_reports(index, keys), lambda line: has_rows(line) and names_it(line)
            )
            sent_rows = (row for one in reports for row in one.relay.sent if row.channel == channel)
            messages = [_numbered(minutes, sent_rows, seq, epoch, channel)]
        log.asked = "" if begin is None else iso(begin), None if end is None else iso(end)
        span = log.asked[0], log.asked[1] or "~"
        records = log.to_the_end(RecordReader().records(lines_of_subscribers(index, keys, log.asked)))
        rows = [fields_of(row) for row in recipients(records, channel, messages, span=span)]
        if not as_json:
            rows = [log.shown_life(row) for row in rows]
        of = "of this time" if since or until else "in this log"
        nothing = f"No connection {of} subscribed to {printable(channel)}."
        print_rows(rows, as_json=as_json, columns=_RECIPIENTS, nothing=log.nothing(nothing))


Minutes = Sequence[tuple[str, int, int, str, str]]
"""Epoch, first and last number, and the times between which they were published."""


def _of_minute(minutes: Minutes, moment: str, channel: str) -> list[Message]:
    """Return the messages of the minutes that a moment is in: of each epoch, all that were published together.

    Raises:
        ConfigurationError: if there are none.
    """
    found: dict[str, Message] = {}
    for epoch, first, last, since, until in minutes:
        if since <= moment <= until:
            one = found.get(epoch, Message(epoch=epoch, first=first, last=last, published=since))
            found[epoch] = Message(
                epoch=epoch,
                first=min(first, one.first),
                last=max(last, one.last),
                published=min(since, one.published),
            )
    if not found:
        raise ConfigurationError(
            f"The log does not say that something was published on {printable(channel)} in that minute. Give --seq, or "
            "another time: relay audit publications shows when there was something."
        )
    return list(found.values())


def _numbered(minutes: Minutes, sent_rows: Iterable[Sent], seq: int, epoch: str, channel: str) -> Message:
    """Return the message with a number, and say if the log knows of none.

    Raises:
        ConfigurationError: if it may be of several epochs, or not of the one that is given.
    """
    newest: dict[str, int] = {}
    numbers = chain(((one[0], one[2]) for one in minutes), ((row.epoch, row.last) for row in sent_rows))
    for of, last in numbers:
        newest[of] = max(last, newest.get(of, 0))
    if epoch and newest and epoch not in newest:
        raise ConfigurationError(
            f"The log does not know the epoch {printable(epoch)} of {printable(channel)}. It knows {_epochs(newest)}."
        )
    having = [epoch] if epoch else [of for of, last in newest.items() if last >= seq]
    if len(having) > 1:
        raise ConfigurationError(
            f"{printable(channel)} had the number {seq} in several epochs. Give --epoch, one of: {_epochs(newest)}."
        )
    of = having[0] if having else next(reversed(newest), "")
    if newest.get(of, 0) < seq:
        known = f"the highest one is {newest[of]}" if of in newest else "no number is known"
        sys.stderr.write(
            f"The log does not know (yet) of a message {seq} on {printable(channel)}: {known}. Publications are "
            "recorded each minute.\n"
        )
    published = [since for name, first, last, since, _ in minutes if name == of and first <= seq <= last]
    return Message(epoch=of, first=seq, last=seq, published=min(published, default=""))


def _epochs(newest: Mapping[str, int]) -> str:
    return ", ".join(f"{printable(name)} (up to {last})" for name, last in newest.items())
