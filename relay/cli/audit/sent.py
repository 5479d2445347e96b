"""`relay audit sent`: what a session was sent. `relay audit recipients`: who was sent a message."""

from typing import Annotated

import typer

from relay.audit.query.records import RecordReader, iso
from relay.audit.query.sent import recipients, sent_to
from relay.cli.audit.input import FilesOption, Log, query, reported
from relay.cli.audit.output import fields_of, print_rows
from relay.cli.audit.times import LocalOption, parse_time
from relay.cli.options import ConfigOption, JsonOption
from relay.cli.output import printable
from relay.core.errors import ConfigurationError
from relay.core.patterns import is_channel

_SENT = ("connection", "user", "channel", "first", "last", "count", "complete", "since", "until", "epoch")
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
    from relay.audit.index.questions import lines_naming

    rows = [fields_of(row) for row in sent_to(log.reader.records(lines_naming(index, [about])), about)]
    if not as_json:
        rows = [
            row
            | {"since": log.shown(row["since"]), "until": log.shown(row["until"])}
            | {"complete": "yes" if row["complete"] else "no"}
            | ({} if row["channel"] else {"channel": "(not named: see limits.sent_recorded)"})
            for row in rows
        ]
    nothing = f"The log has no report of what {printable(about)} was sent in this time."
    print_rows(rows, as_json=as_json, columns=_SENT, nothing=nothing, right=("first", "last", "count"))


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
    with reported(Log(file=file, config=config, local=local)) as log:
        index = log.index
        from relay.audit.index.publications import published_on
        from relay.audit.index.questions import lines_of_subscribers

        spans = {(epoch, seq, seq)}
        if at:
            moment = iso(parse_time(at, option="--at", local=local))
            found = published_on(index, channel, span=(moment, moment))
            spans = {(one.epoch, one.first, one.last) for one in found if one.channel and one.count}
            if not spans:
                raise ConfigurationError(
                    f"The log does not say that something was published on {printable(channel)} in that minute. Give "
                    "--seq, or another time: relay audit publications shows when there was something."
                )
        records = list(RecordReader().records(lines_of_subscribers(index, channel)))
        epochs = sorted({row.epoch for one in records for row in one.relay.sent if row.channel == channel})
        if not epoch and not at:
            if len(epochs) > 1:
                named = ", ".join(map(printable, epochs))
                raise ConfigurationError(
                    f"The log has several epochs of this channel. Give --epoch, one of: {named}."
                )
            spans = {(epochs[0] if epochs else "", seq, seq)}
        rows = [
            fields_of(row)
            for of, first, last in sorted(spans)
            for row in recipients(records, channel, epoch=of, first=first, last=last)
        ]
    if not as_json:
        rows = [
            row
            | {"since": log.shown(row["since"])}
            | {"until": log.shown(row["until"]) or "open when the log ends"}
            for row in rows
        ]
    nothing = f"No connection in this log subscribed to {printable(channel)}."
    print_rows(rows, as_json=as_json, columns=_RECIPIENTS, nothing=nothing)
