"""The server-side refresh, made of the settings."""

import time
from collections.abc import Callable

import structlog
from starlette.requests import Request

from relay.audit.base import Auditor
from relay.bff.backend import Backend
from relay.bff.refresh import Refresher
from relay.bff.renewal import RefreshRenewal, RenewalOptions
from relay.core.errors import Refusal
from relay.core.events import Client
from relay.core.revocations import Kind, Target
from relay.issuer.service import Issuer
from relay.server.options import refresh_options
from relay.server.session_verifier import own_cookies
from relay.sessions.base import Session
from relay.settings.load import Settings
from relay.state.families import Families
from relay.stream.revoker import Revoker
from relay.web.csrf import CsrfCheck

log = structlog.get_logger("relay")


def make_refresher(
    settings: Settings,
    *,
    families: Families,
    backend: Backend,
    issuer: Issuer,
    revoker: Revoker,
    auditor: Auditor,
) -> Refresher:
    """Return the refresher. The caller closes it."""

    async def authenticate(access_token: str, logged_in_at: float) -> Session | Refusal:
        return await issuer.authenticate(access_token, now=time.time(), logged_in_at=logged_in_at)

    async def end_session(ref: str, user: str) -> None:
        await revoker.revoke(Target(kind=Kind.SESSION, name=ref), user=user, client=Client())

    async def logout(refresh_token: str) -> Refusal | None:
        if failed := await backend.logout(refresh_token):
            log.warning("the backend was not told that a log-in is over", why=str(failed))
        return failed

    return Refresher(
        refresh_options(settings),
        families=families,
        redeem=backend.refresh,
        authenticate=authenticate,
        end_session=end_session,
        logout=logout,
        auditor=auditor,
    )


def make_renewal(
    settings: Settings, refresher: Refresher, *, csrf: CsrfCheck, client_of: Callable[[Request], Client]
) -> RefreshRenewal:
    """Return what renews the sessions of requests."""
    cookies = own_cookies(settings)
    assert cookies.refresh is not None  # there is a refresher
    options = RenewalOptions(csrf=csrf, access=cookies.access, refresh=cookies.refresh)
    return RefreshRenewal(options, refresher=refresher, client_of=client_of)
