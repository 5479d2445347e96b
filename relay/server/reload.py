"""SIGHUP: read the settings again, use what a running relay can use, and log and record what needs a restart.

The settings are read and checked as at the start. If they can't be used, nothing changes and one log line says why. A
running relay can use other publishers, operators, grants, origins, limits, proxy routes and certificates. It reads
signing keys every second, without a signal. Connections stay open, but for the sockets of publishers whose key was
removed.
"""

import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import Any

import anyio
import structlog

from relay.core.errors import ConfigurationError
from relay.core.events import Action, Event
from relay.keys.sources import FetchedKeys
from relay.server.certificates import ListenerTls
from relay.server.notify import READY, notify, notify_reloading
from relay.server.options import (
    csrf_options,
    gate_options,
    http_bounds,
    issuer_options,
    operator_terms,
    policy,
    publisher_terms,
    rates,
    stream_bounds,
    stream_options,
)
from relay.server.parts import Parts, check
from relay.server.proxy import call_options, request_checks
from relay.settings.load import Settings
from relay.settings.proxy import BffSection, Proxy

log = structlog.get_logger("relay")

_NAMED = re.compile(
    rf"(?<![\w./@:-])(?:RELAY_\w+|(?:{'|'.join(Settings.model_fields)})(?:\.[\w-]+)+)", re.ASCII
)
"""A setting's name or a variable. The part of an address or a path is none."""


class Reloader:
    """Gives new settings to the parts of a running relay. `read_again` returns the settings, as at the start."""

    def __init__(self, parts: Parts, tls: ListenerTls, read_again: Callable[[], Settings]) -> None:
        self._parts = parts
        self._tls = tls
        self._read_again = read_again

    async def run(self, hangups: AsyncIterator[int]) -> None:
        """Reload on each signal, until cancelled."""
        async for _ in hangups:
            notify_reloading()
            try:
                await self._reload()
            except ConfigurationError as error:
                log.error(
                    "the settings can't be used; nothing was changed",
                    reason="; ".join(str(error).splitlines()),
                )
                self._record_failure(named_settings(str(error)), "Nothing was changed.")
            except Exception:  # whatever is wrong, a reload must not end the relay
                log.exception("the settings could not be read; nothing more was changed")
                self._record_failure([], "Nothing more was changed.")
            notify(READY)

    async def _reload(self) -> None:
        new = await anyio.to_thread.run_sync(self._read_again)
        keys, verifier = await anyio.to_thread.run_sync(check, new, self._parts.role)
        await verifier.aclose()
        if isinstance(keys, FetchedKeys):
            await keys.aclose()
        before = self._parts.settings
        after = usable(before, new)
        await anyio.to_thread.run_sync(self._tls.check, after)
        renewed = self._tls.load(after)  # the last step that can fail
        ended = self._update_parts(after)
        changed = [*changes(before, after), *(f"{setting} (certificate)" for setting in renewed)]
        result: dict[str, Any] = {
            "changed": changed,
            "needs_restart": changes(after, new),
            "publisher_sockets_ended": ended,
        }
        log.info("the settings were read again", **result)
        # a record has at most `MAX_LIST` of the names; `count` tells how many there are
        self._parts.auditor.note(
            Event(action=Action.RELOAD_SUCCEEDED, relay={**result, "count": len(changed)})
        )

    def _record_failure(self, names: Sequence[str], outcome: str) -> None:
        # the error itself may quote a value, which may be a secret
        relay = {"settings": names, "detail": f"{outcome} The process log says why."}
        self._parts.auditor.note(Event(action=Action.RELOAD_FAILED, relay=relay))

    def _update_parts(self, settings: Settings) -> int:
        """Give each part its new options. Return how many sockets of publishers were ended."""
        parts, limits = self._parts, settings.limits
        parts.settings = settings
        parts.stream.update(stream_options(settings), gate_options(settings))
        parts.stream.unauthenticated.update(stream_bounds(settings))
        for counts, tls in (
            (parts.http_unauthenticated, settings.listen.tls),
            (parts.internal_unauthenticated, settings.listen.internal_tls),
        ):
            counts.update(http_bounds(settings, tls=tls is not None))
        parts.issuer.update(issuer_options(settings), policy(settings))
        parts.issuer.limits.update(rates(settings))
        parts.csrf.update(csrf_options(settings))
        parts.open_calls.update(per_session=settings.bff.proxy.calls_per_session)
        if parts.proxy is not None:
            parts.proxy.update(request_checks(settings), call_options(settings))
        parts.operators.update(operator_terms(settings))
        parts.auditor.update(denials=limits.denials_recorded, subscriptions=limits.subscriptions_recorded)
        parts.ingest.summary.each = limits.publications_recorded
        parts.broker.update(max_channels=limits.channels)
        parts.ingest.update(publisher_terms(settings))
        return parts.ingest_sockets.end_refused()


def usable(current: Settings, new: Settings) -> Settings:
    """Return the current settings with everything of the new ones that a running relay can use.

    The grants of an endpoint that is new or another one wait for the restart, together with the endpoint.
    """
    same = {name for name, found in current.endpoints.items() if new.endpoints.get(name) == found}
    grants = {
        role: {
            name: grant
            for settings, wanted in ((current, False), (new, True))
            for name, grant in settings.grants.get(role, {}).items()
            if (name in same) is wanted
        }
        for role in (*new.grants, *(role for role in current.grants if role not in new.grants))
    }
    files = {
        name: getattr(new.listen, name)
        for name in ("tls", "internal_tls")
        if getattr(current.listen, name) is not None and getattr(new.listen, name) is not None
    }
    return current.model_copy(
        update={
            "bff": current.bff.model_copy(update={"proxy": _usable_proxy(current.bff, new.bff)}),
            "public": current.public.model_copy(update={"allowed_origins": new.public.allowed_origins}),
            "listen": current.listen.model_copy(update=files),
            "grants": {role: by_endpoint for role, by_endpoint in grants.items() if by_endpoint},
            "publishers": new.publishers,
            "operators": new.operators,
            "csrf": new.csrf,
            "limits": new.limits,
            "channels": new.channels,
        }
    )


def _usable_proxy(current: BffSection, new: BffSection) -> Proxy:
    """Return the proxy's settings, but for those of its connections to the backend.

    Routes are made for one backend: if that changes, too, they wait for the restart together. A relay that began
    without routes has no proxy that could take some.
    """
    own = {"connections": current.proxy.connections, "keepalive_s": current.proxy.keepalive_s}
    if not current.proxy.routes or new.model_copy(update={"proxy": current.proxy}) != current:
        return current.proxy
    return new.proxy.model_copy(update=own)


def named_settings(error: str) -> list[str]:
    """Return the names of settings and RELAY_* variables in an error, and nothing of their values.

    A name stands before the sentence ("relay.toml: limits.channels: must be …"), where it may be a wrong one, or in it.
    """
    found = []
    for line in error.splitlines():
        before = [part for part in line.split(": ")[:2] if _NAMED.fullmatch(part)]
        # what stands second is a name only after a file or a variable
        found += before if before[:1] and before[0].startswith("RELAY_") else before[:1]
        found += [name for name in _NAMED.findall(line) if _is_known(name)]
    return list(dict.fromkeys(found))


def _is_known(name: str) -> bool:
    """Tell whether a text like "audit.path" is a setting's name. "audit.jsonl" is a value, such as a file's name."""
    if name.startswith("RELAY_"):
        return True
    section, inner, *_ = name.split(".")
    kind = Settings.model_fields[section].annotation
    return inner in getattr(kind, "model_fields", {inner: None})


def changes(before: Settings, after: Settings) -> list[str]:
    """Return the dotted names of the settings that differ. A section that was added or removed is one name."""
    return list(_changes(before.model_dump(), after.model_dump(), ""))


def _changes(before: object, after: object, name: str) -> Iterator[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in sorted(before.keys() | after.keys()):
            inner = f"{name}.{key}" if name else str(key)
            if key in before and key in after:
                yield from _changes(before[key], after[key], inner)
            else:
                yield inner
    elif before != after:
        yield name
