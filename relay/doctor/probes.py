"""The facts that the checks need about this machine and other servers, gathered before the checks run.

Only servers that the settings name are asked, and only for their time: one GET each, without a credential. Any answer
with a Date header will do.
"""

import asyncio
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import httpx

from relay.doctor.base import ClockReading, Deployment, host_of
from relay.net.http_client import async_client
from relay.net.sockets import open_files
from relay.settings.load import Settings

ANSWER_WITHIN_S: Final = 3.0
_ESCAPES = {"\\040": " ", "\\011": "\t", "\\012": "\n", "\\134": "\\"}


async def gather(settings: Settings, file: Path | None, *, ask: bool) -> Deployment:
    """Return the deployment of these settings on this machine. With `ask` False, no other server is asked."""
    clocks = await asyncio.gather(*(_read_clock(*one) for one in _servers(settings).items())) if ask else []
    return Deployment(
        settings=settings,
        file=file,
        now=time.time(),
        open_files=open_files(),
        filesystem_of=filesystem_of,
        clocks=clocks,
    )


def _servers(settings: Settings) -> Mapping[str, str]:
    """Return the URLs of the servers whose clock matters, by their setting."""
    signed, upstream = settings.session.signed, settings.session.upstream
    named = {
        "tokens.jwks_url": settings.tokens.jwks_url,
        "session.signed.jwks_url": None if signed is None else signed.jwks_url,
        "session.upstream.me": None if upstream is None else upstream.me,
        "bff.backend": settings.bff.backend,
    }
    return {setting: url for setting, url in named.items() if url is not None}


async def _read_clock(setting: str, url: str) -> ClockReading:
    host = host_of(url.partition("://")[2].partition("/")[0])
    try:
        async with (
            asyncio.timeout(ANSWER_WITHIN_S),
            async_client(url, timeout_s=ANSWER_WITHIN_S) as client,
        ):
            asked = time.time()
            async with client.stream("GET", url) as response:
                answered = time.time()
                theirs = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (httpx.HTTPError, TimeoutError, KeyError, ValueError):
        return ClockReading(setting=setting, host=host, ahead_s=None)
    return ClockReading(setting=setting, host=host, ahead_s=ahead_by(asked, answered, theirs))


def ahead_by(asked: float, answered: float, theirs: float) -> float:
    """Return the least number of seconds by which this clock is ahead, if `theirs` was read between the other two.

    `theirs` is a whole second, so the real time lies anywhere in that second.
    """
    if asked > theirs + 1:
        return asked - (theirs + 1)
    return min(0.0, answered - theirs)


def filesystem_of(path: Path) -> str:
    """Return the type of file system of `path`, which need not exist; "" if the system does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    target = path.resolve()
    longest, kind = -1, ""
    for line in lines:
        _, mounted, found, *_ = line.split(" ")
        for escaped, plain in _ESCAPES.items():
            mounted = mounted.replace(escaped, plain)
        # of two mounts at one place, the later one covers the earlier one
        if target.is_relative_to(mounted) and len(mounted) >= longest:
            longest, kind = len(mounted), found
    return kind
