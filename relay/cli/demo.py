"""`relay demo`: a backend, a relay and a market on one machine, without anything else to start."""

import shlex
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from relay.demo.deployment import DemoDeployment


def _port(what: str) -> Any:
    return typer.Option(min=0, max=65535, help=f"The port {what}; 0: a free one.")


def demo(
    port: Annotated[int, _port("of the page and of log-in")] = 8000,
    stream_port: Annotated[int, _port("of the WebSockets")] = 8001,
    internal_port: Annotated[int, _port("for publishers and operators")] = 8002,
    origin: Annotated[
        str,
        typer.Option(
            help="A page elsewhere that may use the relay, like http://localhost:5173 of a dev server."
        ),
    ] = "",
    replay: Annotated[
        list[Path] | None,
        typer.Option(
            "--replay", help="Recorded traffic instead of the simulated market. More files may follow."
        ),
    ] = None,
    more: Annotated[list[Path] | None, typer.Argument(metavar="FILE", help="Further recorded files.")] = None,
    speed: Annotated[float, typer.Option(help="Speed of recorded traffic: 10 is ten times as fast.")] = 1.0,
) -> None:
    """Start a demo backend, a relay and a market of 20 symbols; open the printed address in a browser."""
    from functools import partial

    import anyio

    from relay.core.errors import ConfigurationError
    from relay.demo.run import DemoOptions, run_demo

    if more and not replay:
        raise ConfigurationError("Name recorded files after --replay.")
    options = DemoOptions(
        port=port,
        stream_port=stream_port,
        internal_port=internal_port,
        origin=origin,
        replay=[*(replay or ()), *(more or ())],
        speed=speed,
    )
    anyio.run(
        partial(
            run_demo,
            options,
            announce=_announce,
            report=lambda line: print(line, file=sys.stderr, flush=True),
        ),
        backend_options={"use_uvloop": True},
    )


_QUOTE = '{"symbol":"BTC-USD","bid":"1.00","bid_size":"1","ask":"1.01","ask_size":"1"}'


def _announce(deployment: "DemoDeployment", source: str, process: int) -> None:
    relay = _relay_command()
    print(
        f"""\
relay demo: {source}

  open       {deployment.url}
  log in as  demo@example.com, password demo
  account    {deployment.url}/account
               a call through the API proxy, and what became of it on its way
{_page(deployment)}  publish    {relay} publish prices.BTC-USD '{_QUOTE}' \\
               --url {deployment.internal_url} --key {deployment.publisher_key}
  watch      {deployment.internal_url}/ops
               with the key {deployment.operator_key}
  audit log  {relay} audit verify {shlex.quote(str(deployment.audit_file))}
  settings   {deployment.settings_file}
  restart    kill {process}
               ends the relay; the demo starts it again

Ctrl-C stops it.""",
        flush=True,
    )


def _page(deployment: "DemoDeployment") -> str:
    return (
        f"  page       {deployment.origin}\n               may log in, ask for tokens and open sockets\n"
        if deployment.origin
        else ""
    )


def _relay_command() -> str:
    """Return how any shell calls the `relay` of this environment: another terminal may have another PATH."""
    script = Path(sysconfig.get_path("scripts"), "relay")
    return shlex.quote(str(script)) if script.exists() else f"{shlex.quote(sys.executable)} -m relay"
