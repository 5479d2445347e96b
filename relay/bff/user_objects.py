"""The user as the backend describes it, for the page: without the tokens of the session."""

from collections.abc import Collection
from typing import Any


def without_tokens(user: dict[str, Any], tokens: Collection[str]) -> dict[str, Any]:
    """Return the user without each member and entry that contains one of the tokens, in its name or its value.

    A backend may repeat a token in the user object, and scripts in the browser can read that object.

    Raises:
        RecursionError: if it is nested too deeply to be searched.
    """

    def holds(item: Any) -> bool:
        return isinstance(item, str) and any(token in item for token in tokens)

    def clean(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: clean(item) for key, item in value.items() if not holds(key) and not holds(item)}
        if isinstance(value, list):
            return [clean(item) for item in value if not holds(item)]
        return value

    found: dict[str, Any] = clean(user)
    return found
