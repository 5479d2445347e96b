"""Scoped tokens for other services, a public API: an ASGI middleware and a function that check them.

    from relay.verify import ScopedTokenMiddleware, Verifier
    from relay.verify.sqlite import SqliteSingleUse

    verifier = Verifier(
        issuer="https://app.example.com",                      # public.url of the relay
        audience="https://reports.example.com/v1/export",      # url of its [endpoints.reports], exactly
        keys="https://app.example.com/.well-known/jwks.json",
        single_use=SqliteSingleUse.open(Path("used-tokens.db")),
    )
    app.add_middleware(ScopedTokenMiddleware, verifier=verifier, paths=("/v1/export",))

The relay's issuer mints the tokens (`kind = "service"` in its settings). The service does not call it for each token:
signature, claims, origin and single use are checked here. Without ASGI, call `await verifier.verify(token, origin=…)`,
as the middleware does. This import loads nothing of the server: no listener, no settings, no database.

A logout does not reach a service: a token that was issued before it stays valid for the rest of its 30 seconds.
"""

from relay.core.errors import ConfigurationError, Reason, Refusal, UnavailableError
from relay.core.tokens import Claims
from relay.verify.asgi import ScopedTokenMiddleware
from relay.verify.single_use import MemorySingleUse, SingleUse
from relay.verify.verifier import Verifier

__all__ = [
    "Claims",
    "ConfigurationError",
    "MemorySingleUse",
    "Reason",
    "Refusal",
    "ScopedTokenMiddleware",
    "SingleUse",
    "UnavailableError",
    "Verifier",
]
