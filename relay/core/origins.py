"""Refusals of origins. Each names the origin and the setting that would allow it, for the log and the audit record."""

from relay.core.errors import Reason, Refusal

SETTING = "public.allowed_origins"
MAX_SHOWN = 120


def refused_origin(origin: str, *, callers: bool = False) -> Refusal:
    """Return the refusal of a request or a handshake from `origin`.

    `callers`: origins that may send requests are asked for, of which some may open no sockets.
    """
    reason = Reason.CSRF_FAILED if callers else Reason.ORIGIN_REFUSED
    if origin == "null":
        return Refusal(
            reason=reason,
            detail="The Origin is null, as in sandboxed frames and local files. No setting allows it.",
        )
    shown = ascii(origin[:MAX_SHOWN])
    named = f"{SETTING} or csrf.trusted_origins" if callers else SETTING
    detail = f"The Origin {shown} is not public.url, and not in {named}."
    return Refusal(reason=reason, detail=detail, setting=SETTING)
