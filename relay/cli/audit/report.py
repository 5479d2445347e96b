"""`relay audit report`: a page about a span of the log, for an auditor."""

import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from relay.audit.query.records import RecordReader, iso
from relay.cli.audit.input import Log, query
from relay.cli.audit.replaced import check_target, replaced
from relay.cli.audit.times import parse_period
from relay.cli.audit.verify import HeadOption, check, exit_code, parse_head, unreadable
from relay.core.errors import ConfigurationError, RelayError


@query
def report(
    log: Log,
    html: Annotated[
        Path,
        typer.Option("--html", metavar="FILE", help="The file to write, for its owner alone (mode 0600)."),
    ],
    *,
    period: Annotated[
        str,
        typer.Option("--period", metavar="TIME", help="How long before --until, or before now, it begins."),
    ] = "30d",
    head: HeadOption = "",
    keys: Annotated[
        Path | None,
        typer.Option(
            "--keys", metavar="DIR", help="Folder with the public keys that signed the checkpoints."
        ),
    ] = None,
) -> None:
    """Write one page for an auditor: what was granted, used and refused, and proof that the log is whole.

    The page loads and runs nothing: it opens without a network, can be printed, and names the heads to keep.

    If the log is damaged, the page says so, and the exit code is that of `relay audit verify`.
    """
    check_target(html, option="--html", logs=log.files)
    given = parse_head(head)
    now = datetime.now(UTC)
    since, until = log.reader.span
    end = datetime.fromisoformat(until) if until else now
    try:
        begin = datetime.fromisoformat(since) if since else end - parse_period(period, option="--period")
    except OverflowError:
        raise ConfigurationError(f"--period: {period} is longer than the calendar.") from None
    if begin > end:
        raise ConfigurationError("--since is later than --until.")
    log.reader = RecordReader(since=begin, until=end)
    index = log.index
    from relay.audit.index.findings import findings
    from relay.audit.report.page import ProvenChain, Span, report_page

    found = findings(index)
    try:
        # after the index was read, so that the proof is of all records that the page counts
        chains = check(log.named, tell=_tell, head=given, keys=keys, config=log.config)
    except OSError as error:
        raise RelayError(unreadable(error)) from None
    page = report_page(
        found,
        [ProvenChain(file=Path(one.name).name, verdict=one.verdict, end=one.end) for one in chains],
        span=Span(since=iso(begin), until=iso(end), first=begin.date(), last=end.date()),
        made_at=iso(now),
    )
    with replaced(html, option="--html", logs=log.files) as file:
        file.write_text(page, "utf-8")
    code = exit_code(chains)
    for one in chains:
        if not one.verdict.ok:
            sys.stderr.write(f"{one.name}: {one.verdict}\n")
    if code:
        raise typer.Exit(code)


def _tell(note: str) -> None:
    sys.stderr.write(f"{note}\n")
