"""POST /v1/revocations: revoke a session, a user, a token or a key, and close its connections.

A session can be named by its id, which a backend knows, or by its reference in the audit log. The id is turned into
the reference here and appears in no log. A user is named by `sub`, a token by `jti`. A key is named by `kid`, on a
stream listener that fetches its keys: without this it would accept the key until its cached copy expires.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request

from relay.core.errors import MalformedError
from relay.core.events import Client
from relay.core.revocations import Kind, Target
from relay.ops.operators import HandlerResult
from relay.sessions.claims import id_text
from relay.web.answers import json_answer
from relay.web.bodies import read_json_object

MAX_BODY_BYTES = 2048
MAX_NAME_CHARS = 256
"""Longest id, the same as a subject's."""

_REF = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MEMBERS = ("sid", "ref", "sub", "jti", "kid")
_WANTED = (
    'Send exactly one of {"sid": a session\'s id}, {"ref": its reference in the audit log}, {"sub": a user}, '
    '{"jti": a token\'s id} and {"kid": a key\'s id}.'
)


class Revoke(Protocol):
    """The port for revoking a target."""

    def __call__(self, target: Target, *, client: Client, operator: str) -> Awaitable[int]:
        """Return the number of closed connections. Raises `UnavailableError` if it could not be stored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """The route's handler. `ref_of` turns a session's id into its reference; `keep_s` is the life of a revocation."""

    revoke: Revoke
    ref_of: Callable[[str], str]
    client_of: Callable[[Request], Client]
    keep_s: int

    async def serve(self, request: Request, operator: str) -> HandlerResult:
        """Revoke the target in the body. The answer has the number of closed connections.

        Raises:
            MalformedError: if the body does not name exactly one target, or names a key of this process's own folder.
            UnavailableError: if the revocation could not be stored.
        """
        target = self._target(await read_json_object(request, max_bytes=MAX_BODY_BYTES))
        closed = await self.revoke(target, client=self.client_of(request), operator=operator)
        answer = {"revoked": target.kind.value, "connections": closed, "holds_s": self.keep_s}
        return HandlerResult(response=json_answer(200, answer), recorded=answer)

    def _target(self, body: Mapping[str, Any]) -> Target:
        if len(body) != 1 or not body.keys() <= set(_MEMBERS):
            raise MalformedError(_WANTED)
        ((member, value),) = body.items()
        name = id_text(value) if member in ("sid", "sub") else value
        if not isinstance(name, str) or not 0 < len(name) <= MAX_NAME_CHARS:
            raise MalformedError(f"{member} is a text of 1 to {MAX_NAME_CHARS} characters.")
        match member:
            case "sid":
                return Target(kind=Kind.SESSION, name=self.ref_of(name))
            case "ref":
                if not _REF.fullmatch(name):
                    raise MalformedError("ref is 32 hex digits, as session.ref in the audit log.")
                return Target(kind=Kind.SESSION, name=name)
            case "sub":
                return Target(kind=Kind.USER, name=name)
            case "kid":
                return Target(kind=Kind.KEY, name=name)
        return Target(kind=Kind.TOKEN, name=name)
