"""Pages of a Python application behind a log-in of the relay, a public API: for Starlette, FastAPI and Django (ASGI).

    from relay.pages import PageAnswer, PageBoundary, backend, verify_session

    async def dashboard(request):
        user = await verify_session(request)               # one call of the backend's /auth/me for each page
        if isinstance(user, PageAnswer):
            return user                                    # to the log-in, or to the renewal of the session
        orders = await backend(request).get("/orders")     # with this user's access token
        return HTMLResponse(…)

    app = PageBoundary(app, protected=["/dashboard"], backend="http://127.0.0.1:9000")

Three layers answer three questions. The boundary asks if there is a cookie at all, and calls nobody. `verify_session`
asks if the session is valid, so that the user sees a log-in and no broken page. What a user may see is decided by the
backend at each call: that alone is the security.

The page server is a process of its own, and needs none of the relay's settings and secrets. It reads the access token
from its cookie for calls to the backend, and never redeems a refresh token: a renderer can't store the new one. This
import loads nothing of the server: no listener, no settings, no database.
"""

from relay.core.errors import ConfigurationError
from relay.pages.answers import PageAnswer
from relay.pages.boundary import PageBoundary
from relay.pages.visit import SessionEnded, User, backend, return_to, verify_session

__all__ = [
    "ConfigurationError",
    "PageAnswer",
    "PageBoundary",
    "SessionEnded",
    "User",
    "backend",
    "return_to",
    "verify_session",
]
