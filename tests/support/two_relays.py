"""Two relays as processes on one engine, as users run them: the same keys, and audiences of the first."""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.support.engines import EngineServer
from tests.support.relay_process import Relay, make_relay

WITHOUT_REFRESH = 'backend = "http://127.0.0.1:9"\n[bff.fields]\nrefresh_token = ""'


def on_engine(
    folder: Path, engine: EngineServer | str, *, bff: str = WITHOUT_REFRESH, extra: str = "", **options: Any
) -> Relay:
    """Write a relay's settings with this engine, or with one of this URL."""
    url = engine if isinstance(engine, str) else engine.url
    return make_relay(folder, bff=bff, extra=f'[engine]\nurl = "{url}"\n{extra}', **options)


@contextlib.contextmanager
def two_relays(
    folder: Path,
    engine: EngineServer | str,
    *,
    environment: Mapping[str, str] | None = None,
    **options: Any,
) -> Iterator[tuple[Relay, Relay]]:
    """Run two relays. The second answers for the names of the first."""
    one, other = (on_engine(folder / name, engine, **options) for name in ("one", "other"))
    settings = (other.folder / "relay.toml").read_text()
    for mine, theirs in zip(other.ports[:2], one.ports[:2], strict=True):
        settings = settings.replace(f'"http://127.0.0.1:{mine}"', f'"http://127.0.0.1:{theirs}"')
        settings = settings.replace(f'"ws://127.0.0.1:{mine}"', f'"ws://127.0.0.1:{theirs}"')
    (other.folder / "relay.toml").write_text(settings)
    shutil.rmtree(other.folder / "keys")
    shutil.copytree(one.folder / "keys", other.folder / "keys")
    with contextlib.ExitStack() as stack:
        for relay in (one, other):
            relay.environment |= environment or {}
            relay.start()
            stack.callback(relay.stop)
        yield one, other
