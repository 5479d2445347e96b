"""The demo's relay as a process: `relay serve` with the demo's pages.

The pages are an argument of the function that `relay serve` calls. They are not a setting, so no deployment can switch
them on by mistake.
"""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from relay.core.errors import RelayError
from relay.demo.pages import demo_pages
from relay.server import logs, run
from relay.server.session_verifier import session_cookies
from relay.sessions.cookies import SessionCookies
from relay.settings.load import load


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m relay.demo.serve", description="The demo's relay.")
    parser.add_argument("--config", type=Path, required=True)
    parser.add_argument("--source", required=True, help="the market's name on the page")
    parser.add_argument("--symbols", type=int, default=0, help="how many symbols it has, if that is known")
    options = parser.parse_args(arguments)
    try:
        settings = load(options.config)
        logs.configure(level=settings.log.level, format=settings.log.format)
        names = (*session_cookies(settings).names, settings.bff.refresh_cookie)
        pages = partial(
            demo_pages,
            audit_path=settings.audit.path,
            source=options.source,
            symbols=options.symbols,
            stream_url=settings.public.stream_url,
            cookies=SessionCookies(names=names),
        )
        run.start(settings, announce=lambda _ports: print("ready", flush=True), pages=pages)  # noqa: T201  # the parent waits for it
    except RelayError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
