"""The modules that `relay.verify` and `relay.pages` import: few, so that any service can use them."""

import subprocess
import sys

SERVER = {
    "websockets",
    "uvicorn",
    "starlette",
    "sqlite3",
    "pydantic",
    "typer",
    "limits",
    "relay.server.run",
    "relay.settings.load",
    "relay.state.sqlite",
    "relay.stream",
    "relay.issuer",
    "relay.web",
}


def imported_with(statement: str) -> set[str]:
    """Return the modules that a new interpreter has after a statement."""
    script = f"{statement}; import sys; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_nothing_of_the_server_is_imported() -> None:
    """No listener, settings or database of the relay: a service has its own."""
    assert not imported_with("import relay.verify") & SERVER


def test_the_database_is_imported_only_with_its_module() -> None:
    """`relay.verify.sqlite` imports SQLite and the relay's store, and nothing else of the server."""
    assert imported_with("import relay.verify.sqlite") & SERVER == {"sqlite3", "relay.state.sqlite"}


def test_a_page_server_imports_nothing_of_the_relays_server() -> None:
    """`relay.pages` is a process of its own: Starlette's classes and httpx, and no listener, settings or database."""
    assert imported_with("import relay.pages") & (SERVER | {"relay.bff"}) <= {"starlette", "relay.web"}
