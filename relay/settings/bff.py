"""The section [bff] of relay.toml: log-in and log-out against a backend."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from relay.settings.base import Section
from relay.settings.sections import CookieName, Origin, RoutePath, matching

MemberName = Annotated[
    str,
    matching(
        r"[A-Za-z_][A-Za-z0-9_-]{0,63}",
        "must have 1 to 64 of the characters a-z, A-Z, 0-9, _ and -, and begin with a letter or _",
    ),
]
_PATH = r"[A-Za-z_][A-Za-z0-9_-]{0,63}(\.[A-Za-z_][A-Za-z0-9_-]{0,63}){0,7}"
MemberPath = Annotated[
    str, matching(_PATH, 'must be the name of a member, or a path to one like "data.accessToken"')
]
OptionalMemberPath = Annotated[
    str, matching(rf"({_PATH})?", 'must be the name of a member, a path to one like "data.user", or empty')
]
LoginCode = Annotated[
    str,
    matching(r"[A-Za-z0-9_.:-]{1,64}", "must have 1 to 64 of the characters a-z, A-Z, 0-9, _, -, . and :"),
]
LoginMessage = Annotated[str, Field(min_length=1, max_length=500)]


class BffFields(Section):
    """Where the members of the backend's answers are. A dot leads into an object."""

    access_token: MemberPath = Field(
        default="accessToken", description='Access token, like "access_token" or "data.accessToken".'
    )
    refresh_token: OptionalMemberPath = Field(
        default="refreshToken", description="Refresh token. Empty: the backend has none."
    )
    user: OptionalMemberPath = Field(
        default="user", description="Object with the user, for the page. Empty: the answer has none."
    )
    code: MemberPath = Field(default="code", description="Code of a refusal, for bff.login_codes.")
    message: MemberPath = Field(
        default="message", description="Message of a refusal, for bff.login_messages."
    )


class BffRefresh(Section):
    """How a session gets a new access token when the old one is over."""

    path: RoutePath = Field(default="/auth/refresh", description="Path of the backend's refresh route.")
    dead: tuple[LoginCode, ...] = Field(
        default=(),
        max_length=64,
        description='Values of "error" in a 400 that say that a refresh token is over, besides "invalid_grant".',
    )
    unconfirmed_s: int = Field(
        default=86_400,
        ge=60,
        le=604_800,
        description="Seconds for which an old refresh cookie gets the new one if the browser never showed that.",
    )
    reuse_ends_session: bool = Field(
        default=False, description="Whether a spent refresh cookie ends the whole log-in, as a sign of theft."
    )


_NAMES_OF_USERS = frozenset({"email", "login", "user", "userName", "user_name", "username"})


class Bff(Section):
    """Log-in and log-out against a backend. Without `backend` the relay has no such routes."""

    backend: Origin | None = Field(default=None, description="Origin of the backend that checks credentials.")
    login_path: RoutePath = Field(default="/auth/login", description="Path of the backend's log-in route.")
    me_path: RoutePath = Field(
        default="/auth/me",
        description="Path of the backend's route that describes the user, for GET /api/auth/me.",
    )
    login_names: tuple[MemberName, ...] = Field(
        default=("email",),
        min_length=1,
        max_length=8,
        description="Members of the log-in that name the user. A log-in has exactly one of them, and is counted by it.",
    )
    login_fields: tuple[MemberName, ...] = Field(
        default=(),
        max_length=32,
        description='Further members that are passed on, like "otp" or "remember": texts, numbers, true and false.',
    )
    login_codes: tuple[LoginCode, ...] = Field(
        default=(),
        max_length=64,
        description='Codes of the backend\'s refusals that the browser gets, with their status, like "mfa_required".',
    )
    login_messages: tuple[LoginMessage, ...] = Field(
        default=(), max_length=64, description="Messages of the backend's refusals that the browser gets."
    )
    fields: BffFields = BffFields()
    refresh: BffRefresh = BffRefresh()
    logout_path: RoutePath | None = Field(
        default=None, description="Path of the backend's log-out route. It gets the refresh token as Bearer."
    )
    timeout_s: float = Field(default=5.0, gt=0, le=60, description="Seconds that the backend may take.")
    refresh_cookie: CookieName = Field(
        default="__Host-refresh-token", description="Name of the refresh cookie."
    )
    same_site: Literal["lax", "none"] = Field(
        default="lax",
        description="Whether pages of other sites may embed the application: with none, the cookies have SameSite=None "
        "and Partitioned.",
    )
    access_max_age_s: int = Field(
        default=900,
        ge=60,
        description="Longest life of the session cookie in seconds; it ends with its token.",
    )
    refresh_max_age_s: int = Field(
        default=604_800,
        ge=60,
        description="Longest life of the refresh cookie in seconds; it ends with its token.",
    )

    @model_validator(mode="after")
    def _check_login_members(self) -> Self:
        if "password" in (*self.login_names, *self.login_fields):
            raise ValueError("login_names and login_fields: password is always passed on; leave it out")
        for name in self.login_fields:
            if name in self.login_names or name in _NAMES_OF_USERS:
                # with two names in one request, a guess at one account could be counted for another
                raise ValueError(f"login_fields: {name} names the user; name it in login_names only")
        return self
