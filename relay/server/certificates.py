"""TLS of the listeners: certificates are read at the start, and again on SIGHUP (`relay.server.reload`)."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from relay.net.tls import ServerTls, TlsFiles
from relay.settings.load import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class ListenerTls:
    """TLS of the listeners, None where a listener speaks plain HTTP. `strict` says that browsers get HSTS."""

    public: ServerTls | None
    internal: ServerTls | None
    strict: bool

    def check(self, settings: Settings) -> None:
        """Read the files that the settings name, for the listeners that speak TLS. See `ServerTls.check`.

        Raises:
            ConfigurationError: with one sentence about the first file that can't be used.
        """
        for side, files in self._pairs(settings):
            side.check(files)

    def load(self, settings: Settings) -> list[str]:
        """Serve these files. Return the settings whose certificate is another one now. See `ServerTls.load`."""
        return [files.setting for side, files in self._pairs(settings) if side.load(files)]

    def _pairs(self, settings: Settings) -> list[tuple[ServerTls, TlsFiles]]:
        pairs = zip((self.public, self.internal), tls_files(settings), strict=True)
        return [(side, files) for side, files in pairs if side is not None and files is not None]


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
