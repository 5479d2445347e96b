"""TLS of the listeners: certificates are read at the start, and again on SIGHUP."""

import signal
from dataclasses import dataclass
from urllib.parse import urlsplit

import anyio
import structlog
from anyio.abc import TaskStatus

from relay.core.errors import ConfigurationError
from relay.net.tls import ServerTls, TlsFiles
from relay.settings.load import Settings

log = structlog.get_logger("relay")


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    """TLS of the listeners, None where a listener speaks plain HTTP. `strict` says that browsers get HSTS."""

    public: ServerTls | None
    internal: ServerTls | None
    strict: bool

    @property
    def sides(self) -> tuple[ServerTls, ...]:
        """The sides that speak TLS."""
        return tuple(side for side in (self.public, self.internal) if side is not None)

    def check(self) -> None:
        """Read renewed certificates. See `ServerTls.check`."""
        for side in self.sides:
            side.check()


def tls_files(settings: Settings) -> tuple[TlsFiles | None, TlsFiles | None]:
    """Return where the certificates of the public listeners and of the internal one are."""
    listen = settings.listen
    return tuple(  # type: ignore[return-value]  # one for each of two names
        None if files is None else TlsFiles(setting=f"listen.{name}", cert=files.cert, key=files.key)
        for name, files in (("tls", listen.tls), ("internal_tls", listen.internal_tls))
    )


def listener_tls(settings: Settings) -> ListenerTls:
    """Read the listeners' certificates.

    Raises:
        ConfigurationError: with one sentence about the first file that can't be used.
    """
    public, internal = (None if files is None else ServerTls(files) for files in tls_files(settings))
    return ListenerTls(
        public=public,
        internal=internal,
        # Browsers keep HSTS for a name on all ports. On `localhost` it would break other servers of the machine.
        strict=public is not None and urlsplit(settings.public.url).hostname != "localhost",
    )


async def renew_certificates(tls: ListenerTls, *, task_status: TaskStatus[None]) -> None:
    """Read the certificates again on each SIGHUP. If they can't be used, the old ones stay and the log says why."""
    with anyio.open_signal_receiver(signal.SIGHUP) as signals:
        task_status.started()
        async for _ in signals:
            try:
                await anyio.to_thread.run_sync(tls.check)
                for side in tls.sides:
                    side.load()
            except ConfigurationError as error:
                log.error("the certificates can't be used; the old ones are served on", reason=str(error))
            else:
                log.info("the certificates were read again")
