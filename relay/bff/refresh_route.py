"""POST /api/auth/refresh: new cookies for a session, before its access token is over."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from relay.bff.routes import BffOptions, BffParts, forged_event
from relay.core.errors import Refusal, UnavailableError
from relay.core.events import Action
from relay.sessions.base import EndedRefusal
from relay.web.answers import refusal_answer
from relay.web.cookies import clear_cookies
from relay.web.endpoints import Endpoint
from relay.web.renewed import SessionRenewal


def refresh_route(options: BffOptions, parts: BffParts, renewal: SessionRenewal) -> Route:
    """Return the route. 204 has new cookies; 401 clears those of a log-in that is over; 502 and 503 keep them."""

    async def refresh(request: Request) -> Response:
        client = parts.client_of(request)
        if refusal := options.csrf(request):
            parts.auditor.note(forged_event(Action.SESSION_REFRESH_DENIED, refusal, client))
            return refusal_answer(refusal)
        if limited := await parts.limit_address(client.address):
            return refusal_answer(limited.refusal, retry_after_s=limited.retry_after_s)
        try:
            renewed = await renewal.renew(request)
        except UnavailableError as error:
            return refusal_answer(Refusal.of(error))
        if isinstance(renewed, Refusal):
            response = refusal_answer(renewed)
            if isinstance(renewed, EndedRefusal):
                clear_cookies(request, response, renewed.ended, options.cookies)
            return response
        response = Response(status_code=204)
        renewed.set_cookies(request, response)
        return response

    return Route("/api/auth/refresh", Endpoint(refresh), methods=["POST"])
