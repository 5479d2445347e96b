"""The base of all sections of relay.toml, and checks that several of them make."""

from typing import Any

from pydantic import BaseModel, ConfigDict, SecretStr, ValidationInfo, field_validator

from relay.core.errors import ConfigurationError
from relay.keys.jwks_url import check_jwks_url

_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff"
"""Zero-width characters, which editors and web pages leave behind, and the byte order mark."""


class Section(BaseModel):
    """Base of all sections. Unknown keys are refused, and values don't change after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)

    @field_validator("*")
    @classmethod
    def _check_secrets(cls, value: Any) -> Any:
        """Refuse white space around any secret. The other side has none, and each signature would be wrong."""
        for secret in value if isinstance(value, tuple) else (value,):
            if isinstance(secret, SecretStr):
                text = secret.get_secret_value()
                if text.strip().strip(_INVISIBLE) != text:
                    raise ValueError(
                        "begins or ends with white space or an invisible character, such as the line break that "
                        "`echo` adds; remove it (`printf %s` adds none)"
                    )
        return value


def without_space_around(value: Any) -> Any:
    """Check that a text, or each text of a table, has no white space around it: it is compared to the letter."""
    for text in value.values() if isinstance(value, dict) else (value,):
        if isinstance(text, str) and text.strip().strip(_INVISIBLE) != text:
            raise ValueError("begins or ends with white space or an invisible character; remove it")
    return value


def checked_jwks_url(value: str | None, info: ValidationInfo) -> str | None:
    """Check the field `jwks_url` of a section that has `jwks_private_http` before it."""
    if value is None:
        return None
    try:
        return check_jwks_url(value, private_http=info.data.get("jwks_private_http") is True)
    except ConfigurationError as error:
        hint = " (jwks_private_http = true allows it in a private network)"
        is_http = value.startswith("http://") and not info.data.get("jwks_private_http")
        raise ValueError(str(error).removesuffix(".") + hint * is_http) from None
