"""POST /v1/revocations: cut off a session, a user, a token or a key, by what the caller happens to know.

A backend knows a session's id, whoever reads the audit log its reference, support a user's name, and whoever found
a token in a log its `jti`. The session's id is turned into the reference here and appears nowhere. A key is named by
its `kid`, on a stream that fetches its keys: it would go on believing them for as long as its copy is fresh enough.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.requests import Request

from relay.core.errors import MalformedError
from relay.core.events import Client
from relay.core.revocations import Kind, Target
from relay.ops.operators import Done
from relay.web.answers import json_answer
from relay.web.bodies import read_json_object

MAX_BODY_BYTES = 2048
MAX_NAME_CHARS = 256
"""Longest id that is taken: as long as a subject may be."""

_REF = re.compile(r"[0-9a-f]{32}", re.ASCII)
_MEMBERS = ("sid", "ref", "sub", "jti", "kid")
_WANTED = (
    'Send exactly one of {"sid": a session\'s id}, {"ref": its reference in the audit log}, {"sub": a user}, '
    '{"jti": a token\'s id} and {"kid": a key\'s id}.'
)


class Revoke(Protocol):
    """Cuts a target off; returns how many connections were closed."""

    def __call__(self, target: Target, *, client: Client, operator: str) -> Awaitable[int]:
        """Raises `UnavailableError` if it could not be stored."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocations:
    """The route's handler. `ref_of` makes a session's reference of its id; `keep_s` is how long a revocation holds."""

    revoke: Revoke
    ref_of: Callable[[str], str]
    client_of: Callable[[Request], Client]
    keep_s: int

    async def serve(self, request: Request, operator: str) -> Done:
        """Revoke what the body names; answers how many connections were closed.

        Raises:
            MalformedError: if the body names not exactly one thing, or a key whose folder is this process's own.
            UnavailableError: if the revocation could not be stored.
        """
        target = self._target(await read_json_object(request, max_bytes=MAX_BODY_BYTES))
        closed = await self.revoke(target, client=self.client_of(request), operator=operator)
        answer = {"revoked": target.kind.value, "connections": closed, "holds_s": self.keep_s}
        return Done(response=json_answer(200, answer), noted=answer)

    def _target(self, body: Mapping[str, Any]) -> Target:
        if len(body) != 1 or not body.keys() <= set(_MEMBERS):
            raise MalformedError(_WANTED)
        ((member, name),) = body.items()
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
