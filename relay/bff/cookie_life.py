"""The life of a session's cookies: never longer than that of the token in them."""

import math
from dataclasses import replace

from relay.web.cookies import CookieOptions


def until(cookie: CookieOptions, ends: float | None, now: float) -> CookieOptions:
    """Return the options of a cookie that ends with its token, if that is earlier than the setting says."""
    if ends is None:
        return cookie
    return replace(cookie, max_age_s=min(cookie.max_age_s, max(0, math.ceil(ends - now))))
