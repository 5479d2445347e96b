"""Spans of time: every question takes one, refuses one that is none, and says what of it the log does not have."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from relay.cli.audit import app
from tests.support.audit_days import Day, make_day

if find_spec("duckdb") is None:
    pytest.skip("needs DuckDB", allow_module_level=True)

QUESTIONS = {
    "why": ("why", "jti-1"),
    "who": ("who", "prices"),
    "scopes": ("scopes",),
    "holds": ("holds",),
    "refused": ("refused",),
    "publications": ("publications", "prices.SOL-USD"),
    "sent": ("sent", "jti-1"),
    "recipients": ("recipients", "prices.SOL-USD", "--seq", "1"),
    "anomalies": ("anomalies",),
    "stats": ("stats",),
    "diff": ("diff", "..2026-11-26T12:00", "2026-11-26T12:00.."),
    "sql": ("sql", "SELECT count(*) FROM tokens"),
    "report": ("report",),
    "export": ("export",),
    "tail": ("tail", "--no-follow"),
}


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Day:
    """A short day."""
    return make_day(tmp_path_factory.mktemp("spans") / "audit.jsonl", tokens=100)


def ask(day: Day, question: str, *options: str) -> Result:
    """Ask, and return the answer."""
    more = ("--html", str(day.path.with_name("report.html"))) if question == "report" else ()
    return CliRunner().invoke(app, [*QUESTIONS[question], *more, *options, "--file", str(day.path)])


def test_these_are_all_questions() -> None:
    """But for `verify`: a part of a chain proves nothing."""
    assert {"verify", *QUESTIONS} == set(getattr(app.info.cls, "entries", {}))


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "2h", "--until", "3h"), "later than --until"),
        (("--since", "2026-11-27", "--until", "2026-11-26", "--local"), "later than --until"),
        (("--since", "yesterday"), "--since: 'yesterday' is no time. Give 2h"),
        (("--until", "2026-11-26T25:00"), "--until: '2026-11-26T25:00' is no time"),
        (("--until", "2026-11-26T09:00 Mars/Base"), "is no time"),
    ],
)
def test_a_span_that_is_none_is_refused(day: Day, question: str, options: tuple[str, ...], said: str) -> None:
    """With what is wrong, before anything is read."""
    result = ask(day, question, *options)
    assert (result.exit_code != 0, said in f"{result.output} {result.exception}") == (True, True)


@pytest.mark.parametrize("question", [name for name in QUESTIONS if name not in ("tail", "diff")])
def test_a_span_that_the_log_does_not_have_is_told(day: Day, question: str) -> None:
    """An empty answer is not the answer to a question about another year."""
    result = ask(day, question, "--since", "2025-11-26", "--until", "2025-11-27")
    assert result.exit_code == 0, result.exception
    assert "The log has no record of this time: it is from 2026-11-26T00:" in result.stderr
    assert "Traceback" not in result.output
    assert not re.search("Nobody|Every|Each|no anomalies", result.stdout)


@pytest.mark.parametrize(
    "question",
    ["scopes", "scopes --unused", "holds", "refused", "publications prices.>", "anomalies", "diff"],
)
def test_an_empty_log_says_that_it_is_empty(tmp_path: Path, question: str) -> None:
    """It does not say that nobody did anything, or that every grant was used."""
    empty = tmp_path / "audit.jsonl"
    empty.touch()
    arguments = QUESTIONS["diff"] if question == "diff" else tuple(question.split())
    result = CliRunner().invoke(app, [*arguments, "--file", str(empty)])
    assert (result.exit_code, result.stdout) == (0, "The log has no records.\n"), result.exception


def test_a_span_that_begins_before_the_log_is_told(day: Day) -> None:
    """The answer is about the rest of it."""
    assert "The log begins only at 2026-11-26T00:" in ask(day, "stats", "--since", "2026-11-01").stderr
    assert "begins" not in ask(day, "stats", "--since", "2026-11-26T12:00").stderr


def test_what_somebody_did_at_another_time(day: Day) -> None:
    """A name that the log knows is no unknown name, though nothing happened to it in this time."""
    result = ask(day, "why", "--since", "2027-01-01")
    assert (result.exit_code, result.stdout) == (0, "The log has nothing about jti-1 in this time.\n")
    result = CliRunner().invoke(app, ["why", "jti-10000", "--file", str(day.path)])
    assert "Did you mean jti-1" in str(result.exception)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--since", "2026-11-26T13:00"), "A: --since and --until leave nothing of '..2026-11-26T12:00'."),
        (("--until", "2026-11-26T11:00"), "B: --since and --until leave nothing of '2026-11-26T12:00..'."),
    ],
)
def test_periods_that_a_span_leaves_nothing_of(day: Day, options: tuple[str, ...], said: str) -> None:
    """The one that is empty is named."""
    assert said in str(ask(day, "diff", *options).exception)


def test_a_span_cuts_both_periods(day: Day) -> None:
    """The same as the periods would be without it."""
    cut = ask(day, "diff", "--since", "2026-11-26T11:00", "--until", "2026-11-26T13:00", "--json")
    periods = ["2026-11-26T11:00..2026-11-26T12:00", "2026-11-26T12:00..2026-11-26T13:00"]
    same = CliRunner().invoke(app, ["diff", *periods, "--json", "--file", str(day.path)])
    assert cut.stdout == same.stdout != "[]\n"


def test_a_folder_is_no_log(day: Day) -> None:
    """Its files have to be named."""
    result = CliRunner().invoke(app, ["stats", "--file", str(day.path.parent)])
    assert str(result.exception) == (
        f"{day.path.parent} is a folder. Name the files of the audit log in it, each with --file."
    )
