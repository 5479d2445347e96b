"""What the checks need to know of this machine and of others, found out beforehand.

Only servers that the settings name are asked, and only for what time it is: one GET each without a credential, whose
answer may be any, as long as it has a Date.
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
    """Return the deployment of these settings on this machine. `ask` False: no other server is asked."""
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
    """Return the URLs of the servers whose clock matters, by the setting that names them."""
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
    """Return by how many seconds this clock is ahead at least, if `theirs` was read between the other two.

    `theirs` is a whole second, and so stands for all of that second.
    """
    if asked > theirs + 1:
        return asked - (theirs + 1)
    return min(0.0, answered - theirs)


def filesystem_of(path: Path) -> str:
    """Return the kind of file system that `path` is on, or will be; "" where the system does not tell."""
    try:
        lines = Path("/proc/self/mounts").read_text("utf-8", "replace").splitlines()
    except OSError:
        return ""
    target = path.resolve()
    best, kind = -1, ""
    for line in lines:
        _, mounted, found, *_ = line.split(" ")
        for escaped, plain in _ESCAPES.items():
            mounted = mounted.replace(escaped, plain)
        # of two on one place the later covers the earlier
        if target.is_relative_to(mounted) and len(mounted) >= best:
            best, kind = len(mounted), found
    return kind
