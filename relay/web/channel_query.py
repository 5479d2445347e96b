"""Query strings that name channels."""

from starlette.datastructures import QueryParams
from starlette.requests import Request


def plus_is_itself(query: str) -> str:
    """Return a query string in which `+` stands for itself.

    HTML forms write a space as `+`, and decoders turn it back. A channel's name may have a `+` (`EURUSD+`) and never a
    space, so the decoded name would be another one, or none.
    """
    return query.replace("+", "%2B")


def channel_query(request: Request) -> QueryParams:
    """Return the parameters of a request that names channels."""
    return QueryParams(plus_is_itself(request.scope["query_string"].decode("latin-1")))
