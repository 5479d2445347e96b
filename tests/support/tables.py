"""The generated parts of the documentation: tables in the words of the code, and the line of links of each room.

    python -m tests.support.tables            names each generated part that differs from the code
    python -m tests.support.tables --write    writes them

A generated part stands between `<!-- generated: NAME -->` and `<!-- /generated -->` in a Markdown file, in the room
that owns the table. To add one, write a function that returns its lines and name it in `PARTS`.
"""

import re
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from os.path import relpath
from pathlib import Path
from typing import Annotated, Any, Final, Union, get_args, get_origin

import pydantic_core
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.main import get_command

from relay.audit.anomalies import ANOMALY_EXPLANATIONS
from relay.cli import app
from relay.core.closes import ANSWERS, close_for
from relay.core.counters import CompressionCounters, Counters, DurationHistogram
from relay.core.errors import EXPLANATIONS
from relay.core.events import ACTION_EXPLANATIONS
from relay.doctor import CHECKS
from relay.metrics.prometheus import _Relay
from relay.metrics.readings import (
    EndpointReading,
    EngineLogReading,
    EngineReading,
    ProxyReading,
    PublisherReading,
    Readings,
)
from relay.settings.endpoints import Grant
from relay.settings.load import Settings
from tests.support import readme
from tests.support.command_line import commands

NO_VALUE: Final = "\N{EN DASH}"

_PART = re.compile(r"(<!-- generated: (?P<name>[\w-]+) -->\n)(?P<text>.*?)(<!-- /generated -->)", re.DOTALL)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [
        f"| {' | '.join(heading)} |",
        f"|{'---|' * len(heading)}",
        *(f"| {' | '.join(row)} |" for row in rows),
    ]


# --- tables of the core and the audit log ---------------------------------------------------------


def _reasons(_: Path) -> list[str]:
    """Each reason with its HTTP status (a dash where no HTTP answer has it) and its close code."""
    rows = []
    for reason, text in EXPLANATIONS.items():
        status = ANSWERS[reason].status
        # nginx's 499: the client went away, so nobody gets this answer
        rows.append(
            (
                f"`{reason.value}`",
                NO_VALUE if status == 499 else str(status),
                str(close_for(reason).code.value),
                text,
            )
        )
    return _table(("reason", "HTTP", "close", "meaning"), rows)


def _actions(_: Path) -> list[str]:
    return _table(
        ("action", "meaning"), [(f"`{action.value}`", text) for action, text in ACTION_EXPLANATIONS.items()]
    )


def _anomalies(_: Path) -> list[str]:
    return _table(
        ("mark", "meaning"), [(f"`{mark.value}`", text) for mark, text in ANOMALY_EXPLANATIONS.items()]
    )


def _checks(_: Path) -> list[str]:
    rows = [(f"`{check.name}`", check.severity.value, check.finds, check.do) for check in CHECKS]
    return _table(("check", "severity", "finds", "what to do"), rows)


def _metrics(_: Path) -> list[str]:
    """Each metric of the relay's own with its labels, read of a relay that has one endpoint and one publisher."""
    endpoint = EndpointReading(connections=0, channels=0, stale=0, newest_s=0, oldest_s=0)
    publisher = PublisherReading(
        published=0, bytes=0, alive=0, refused=0, stale=0, duplicate=0, connections=0, silent_s=0
    )
    readings = Readings(
        version="",
        role="",
        node="",
        at=0,
        started_at=0,
        stopping=False,
        events={},
        hub=Counters(),
        compression=CompressionCounters(),
        turns=DurationHistogram(),
        flushes=DurationHistogram(),
        loop_lag=DurationHistogram(),
        endpoints={"": endpoint},
        publishers={"": publisher},
        waiting=0,
        shed=0,
        audit_waiting=0,
        audit_lost={},
        state_waiting=0,
        limits_alone=0,
        proxy=ProxyReading(answers={}, calls=0, connections=0),
        engine=EngineReading(
            logs={"": EngineLogReading(silent_s=0, generation=0, resyncs=0, behind=0)},
            may_evict=False,
            restarts=0,
            offset_s=0,
            gate_closed=False,
            is_ready=True,
            nodes={},
            log_format=0,
            audit_is_cut=False,
        ),
    )
    rows = []
    for family in _Relay(lambda: readings).collect():
        suffix = "_total" if family.type == "counter" else ""
        labels = ", ".join(getattr(family, "_labelnames", ()))
        rows.append((f"`{family.name}{suffix}`", family.type, labels, family.documentation))
    return _table(("metric", "type", "labels", "meaning"), rows)


def _commands(_: Path) -> list[str]:
    """Each command with the first sentence of its help."""
    found = [(name, one) for name, _, one in commands(get_command(app)) if not hasattr(one, "commands")]
    return _table(("command", "does"), [(f"`{name}`", _first_line(command)) for name, command in found])


def _first_line(command: Any) -> str:
    return " ".join((command.help or "").partition("\n\n")[0].split()).replace("|", "\\|")


# --- settings -------------------------------------------------------------------------------------


def _settings(_: Path) -> list[str]:
    fields: dict[str, FieldInfo] = {}
    for key, field in settings_fields():
        fields.setdefault(key, field)  # both kinds of endpoint have a `kind`; the first has the default
    rows = [(f"`{key}`", _default(field), field.description or "") for key, field in fields.items()]
    return _table(("key", "default", "meaning"), rows)


def settings_fields(model: type[BaseModel] = Settings, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Yield each setting's dotted key and its field. Names that the user gives are in upper case."""
    for name, field in model.model_fields.items():
        key = prefix + name
        kinds = [field.annotation]
        if get_origin(field.annotation) in (Union, types.UnionType):
            kinds = [kind for kind in get_args(field.annotation) if kind is not types.NoneType]
        for kind in kinds:
            sections = _sections_in(get_args(kind)[1]) if get_origin(kind) is dict else []
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                yield from settings_fields(kind, f"{key}.")
            elif sections:
                for section in sections:
                    yield from settings_fields(section, f"{key}.NAME.")
            else:
                yield f"{key}.ROLE.ENDPOINT" if key == "grants" else key, field
        if key == "grants":
            yield from settings_fields(Grant, f"{key}.ROLE.ENDPOINT.")


def _sections_in(kind: Any) -> list[type[BaseModel]]:
    """Return the sections that a value may be: itself, or of an annotated union (endpoints by kind) each."""
    if get_origin(kind) is Annotated:
        return _sections_in(get_args(kind)[0])
    kinds = get_args(kind) if get_origin(kind) in (Union, types.UnionType) else (kind,)
    return [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)]


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True, validated_data={})
    if value is None or value in ((), {}):
        return NO_VALUE
    if value == "":
        return "none"
    if isinstance(value, Enum | Path):
        value = str(value)
    text = pydantic_core.to_json(value).decode().replace(",", ", ")
    return f"`{text}`"


# --- the line of links ----------------------------------------------------------------------------


def _rooms(file: Path) -> list[str]:
    """Links to the other documents, as seen from `file`."""
    others = [(path, label) for path, label in readme.rooms().items() if path != file]
    return [" ·\n".join(f"[{label}]({relpath(path, file.parent)})" for path, label in others)]


# --- all of them ----------------------------------------------------------------------------------

PARTS: Final[dict[str, Callable[[Path], list[str]]]] = {
    "reasons": _reasons,
    "actions": _actions,
    "anomalies": _anomalies,
    "checks": _checks,
    "settings": _settings,
    "commands": _commands,
    "metrics": _metrics,
    "rooms": _rooms,
}
"""Each generated part by its name. A function gets the file that the part is for, and returns its lines."""


def generated(file: Path) -> str:
    """Return the text of `file` with its generated parts as the code has them.

    Raises:
        KeyError: a part has a name that `PARTS` does not know.
    """

    def part(found: re.Match[str]) -> str:
        return found[1] + "\n".join(PARTS[found["name"]](file)) + "\n" + found[4]

    return _PART.sub(part, file.read_text("utf-8"))


def parts_in(file: Path) -> set[str]:
    """Return the names of the generated parts in `file`."""
    return {found["name"] for found in _PART.finditer(file.read_text("utf-8"))}


def main(arguments: Sequence[str]) -> int:
    """Check the generated parts of all documents, or write them with --write. Return the exit code."""
    outdated = [file for file in readme.documents() if generated(file) != file.read_text("utf-8")]
    for file in outdated:
        print(file.relative_to(readme.ROOT))
        if "--write" in arguments:
            file.write_text(generated(file), "utf-8")
    return 1 if outdated and "--write" not in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
