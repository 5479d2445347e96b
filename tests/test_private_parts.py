"""The private parts of other packages that the relay uses, and the bounds on their versions that follow.

A release may change a part that its documentation does not promise, without notice. `bash tests/run --newest` runs
these tests with the newest releases. Which of them takes a part away is then told here, by name.
"""

import ast
import importlib
import inspect
import textwrap
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

from tests.support.constraints import RELAY, pinned

ROOT = Path(__file__).parents[1]

SEEN = {
    "prometheus-client": ("0.26.0",),
    "typer": ("0.29.0", "0.29.1", "0.29.2"),
    "uvicorn": ("0.54.0",),
    "websockets": ("17.4",),
}
"""The releases in which somebody looked at the parts, and with which the tests ran."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Private:
    """Names of one module or class, given as `module:class`, that are not part of a package's promised interface.

    `used_in` are the modules of the relay that use them.
    """

    package: str
    of: str
    names: frozenset[str]
    used_in: tuple[str, ...]


def private(package: str, of: str, used_in: str, names: str) -> Private:
    """Return a row of the table."""
    return Private(package=package, of=of, used_in=tuple(used_in.split()), names=frozenset(names.split()))


PARTS = (
    private(
        "uvicorn",
        "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol",
        "relay.web.bounded_protocol",
        "__init__ _should_upgrade _start_asgi_task _unset_keepalive_if_required _unsupported_upgrade_warning "
        "client connection_lost connection_made connections cycle data_received flow handle_websocket_upgrade "
        "headers loop on_body on_header on_headers_complete on_message_complete on_response_complete parser "
        "pause_writing pipeline resume_writing scope send_400_response shutdown transport url "
        "ws_protocol_class",
    ),
    private(
        "uvicorn",
        "uvicorn.protocols.http.httptools_impl:RequestResponseCycle",
        "relay.web.bounded_protocol",
        "keep_alive on_response response_complete response_started",
    ),
    private(
        "uvicorn",
        "uvicorn.protocols.http.httptools_impl",
        "relay.web.bounded_protocol",
        "HttpToolsProtocol STATUS_LINE",
    ),
    private(
        "uvicorn",
        "uvicorn.protocols.http.flow_control:FlowControl",
        "relay.web.bounded_protocol",
        "pause_reading",
    ),
    private("uvicorn", "uvicorn.protocols.utils", "relay.web.bounded_protocol", "get_remote_addr"),
    private(
        "uvicorn",
        "uvicorn.protocols.websockets.websockets_sansio_impl:WebSocketsSansIOProtocol",
        "relay.web.bounded_websocket",
        "__init__ close_sent conn connection_lost connection_made curr_msg_data_type data_received frames "
        "handle_connect handle_parser_exception handshake_complete handshake_initiated keepalive_timeout loop "
        "pause_writing read_paused receive resume_writing send send_receive_event_to_app shutdown transport writable",
    ),
    private(
        "uvicorn",
        "uvicorn.protocols.websockets.websockets_sansio_impl",
        "relay.web.bounded_websocket",
        "WebSocketsSansIOProtocol",
    ),
    private("uvicorn", "uvicorn._types", "relay.web.bounded_websocket", "ASGIReceiveEvent ASGISendEvent"),
    private(
        "uvicorn",
        "uvicorn:Server",
        "relay.web.uvicorn_runner",
        "__init__ capture_signals config lifespan server_state servers started startup",
    ),
    private("uvicorn", "uvicorn.lifespan.off:LifespanOff", "relay.web.uvicorn_runner", "state"),
    private("websockets", "websockets.http11", "relay.stream.listener", "MAX_LINE_LENGTH MAX_NUM_HEADERS"),
    private(
        "websockets",
        "websockets.asyncio.server:ServerConnection",
        "relay.stream.connection",
        "__init__ connection_lost connection_made data_received eof_received handshake loop process_event protocol "
        "recv_messages remote_address request request_rcvd response resume_writing send_data server transport",
    ),
    private(
        "websockets", "websockets.asyncio.messages:Assembler", "relay.stream.connection", "frames paused"
    ),
    private(
        "websockets",
        "websockets.server:ServerProtocol",
        "relay.stream.connection relay.stream.handshake",
        "accept_called available_extensions close_rcvd close_rcvd_then_sent close_sent handshake_exc reader",
    ),
    private("websockets", "websockets.utils", "relay.stream.handshake", "accept_key"),
    private("websockets", "websockets.protocol:Protocol", "relay.stream.connection", "parse parser"),
    private("websockets", "websockets.datastructures:Headers", "relay.stream.handshake", "set_insecure"),
    private("websockets", "websockets.streams:StreamReader", "relay.stream.connection", "eof"),
    private(
        "websockets",
        "websockets.asyncio.client:ClientConnection",
        "relay.client.connection relay.client.publishing.ingest_connection",
        "transport",
    ),
    private("websockets", "websockets.asyncio.client:connect", "relay.client.handshake", "process_redirect"),
    private(
        "typer",
        "typer.core:TyperGroup",
        "relay.cli.lazy",
        "__init__ add_command get_params invoke resolve_command",
    ),
    private("typer", "typer.core:TyperCommand", "relay.cli.lazy", "__init__ get_params name"),
    private(
        "typer",
        "typer.core:TyperOption",
        "relay.cli.lazy",
        "_runtime_param get_runtime_param type_descriptor",
    ),
    private(
        "prometheus-client", "prometheus_client.exposition", "relay.metrics.prometheus", "choose_encoder"
    ),
)


def find(of: str) -> Any:
    """Return the module or the class that a row names."""
    module, _, name = of.partition(":")
    found = importlib.import_module(module)
    return getattr(found, name) if name else found


INTERPRETER = ("abc", "asyncio", "collections", "typing")
"""Modules whose classes have no source to look at, or are nobody's private parts."""


@cache
def names_of(owner: Any) -> frozenset[str]:
    """Return the names of a module; of a class also those that its methods give to an instance."""
    names = set(dir(owner))
    if not isinstance(owner, ModuleType):
        for part in owner.__mro__:
            if part is not object and part.__module__.partition(".")[0] not in (
                "asyncio",
                "typing",
                "abc",
                "collections",
            ):
                names |= {name for name, is_set in attributes(class_tree(part)) if is_set}
    return frozenset(names)


def class_tree(owner: type) -> ast.AST:
    """Return the syntax tree of a class."""
    return ast.parse(textwrap.dedent(inspect.getsource(owner)))


def attributes(tree: ast.AST) -> Iterator[tuple[str, bool]]:
    """Yield the attributes of `self` that a class uses, and whether it is the class that sets them or declares them."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self":
            yield node.attr, isinstance(node.ctx, ast.Store)


def used_of_bases(owner: type) -> tuple[type, set[str]]:
    """Return the first base of another project, and the names of it that a class of the relay uses or replaces."""
    base = next(each for each in owner.__mro__ if not each.__module__.startswith("relay."))
    there, tree = names_of(base), class_tree(owner)
    used = {name for name, _ in attributes(tree) if name in there}
    used |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_super(node.value)}
    used |= {
        name for name, member in vars(owner).items() if name in vars(base) and inspect.isfunction(member)
    }
    return base, used


def is_super(node: ast.AST) -> bool:
    """Tell whether an expression is `super()`."""
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"


def requirements() -> dict[str, Requirement]:
    """Return what pyproject.toml requires to run, by the package's name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return {each.name: each for each in map(Requirement, project["dependencies"])}


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.of)
def test_an_installed_release_has_the_private_parts(part: Private) -> None:
    """Each private part that the relay uses exists in the release that is installed."""
    seen = f"{part.package} {version(part.package)} is installed; seen in {', '.join(SEEN[part.package])}"
    try:
        owner = find(part.of)
    except (ImportError, AttributeError) as error:
        pytest.fail(f"{part.of} is gone ({error}). {seen}. Used in {', '.join(part.used_in)}.")
    gone = sorted(part.names - names_of(owner))
    assert not gone, f"{part.of} has no {', '.join(gone)}. {seen}. Used in {', '.join(part.used_in)}."


@pytest.mark.parametrize("part", PARTS, ids=lambda part: part.of)
def test_the_table_has_no_part_that_nothing_uses(part: Private) -> None:
    """Each name of the table stands in a module that the row names."""
    text = "".join(inspect.getsource(importlib.import_module(name)) for name in part.used_in)
    trees = ast.walk(ast.parse(text))
    there = {getattr(node, key) for node in trees for key in ("attr", "name", "id") if hasattr(node, key)}
    unused = sorted(part.names - there)
    assert not unused


@pytest.mark.parametrize(
    "of",
    [
        "relay.cli.lazy:LazyCommand",
        "relay.cli.lazy:LazyGroup",
        "relay.client.handshake:_Direct",
        "relay.stream.connection:StreamConnection",
        "relay.web.bounded_protocol:BoundedHttp",
        "relay.web.bounded_websocket:BoundedWebSocket",
        "relay.web.uvicorn_runner:_Server",
    ],
)
def test_the_table_is_complete(of: str) -> None:
    """What a class of the relay uses of a class of another package, or replaces in it, is in the table."""
    base, used = used_of_bases(find(of))
    listed = {name for part in PARTS if ":" in part.of and find(part.of) is base for name in part.names}
    missing = sorted(used - listed)
    assert not missing


def test_private_modules_are_in_the_table() -> None:
    """No module of the relay imports a name with an underscore from another package, unless the table has it."""
    imported = set()
    for path in (ROOT / "relay").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module and not node.module.startswith("relay"):
                imported |= {f"{node.module}.{alias.name}" for alias in node.names}
            elif isinstance(node, ast.Import):
                imported |= {alias.name for alias in node.names}
    hidden = {
        name for name in imported if any(part.startswith("_") for part in name.split(".")) and name[0] != "_"
    }
    assert hidden == {f"{part.of}.{name}" for part in PARTS if "._" in part.of for name in part.names}


def test_bounds_follow_from_the_releases_that_were_seen() -> None:
    """A package with private parts is required from the oldest release seen, and below the next minor one."""
    required = requirements()
    assert {part.package for part in PARTS} == set(SEEN)
    assert {name for name, each in required.items() if "<" in str(each.specifier)} == set(SEEN)
    for package, seen in SEEN.items():
        allowed, newest = required[package].specifier, Version(seen[-1])
        assert all(release in allowed for release in seen), package
        assert f"{newest.major}.{newest.minor + 1}" not in allowed, package
        assert f">={newest.major}.{newest.minor}" in str(allowed), package


def test_the_constraints_have_releases_that_were_seen() -> None:
    """A version that is new in the constraints is new in this table too: somebody has looked at the parts in it."""
    there = pinned(RELAY)
    unseen = {package: there[package] - set(seen) for package, seen in SEEN.items()}
    assert not any(unseen.values()), unseen
