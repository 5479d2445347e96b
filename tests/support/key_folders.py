"""Key folders: the error that a wrong one causes, and the age of a key."""

import json
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.core.tokens import SigningKey
from relay.keys.files import load_keys, public_path


def mistake(folder: Path) -> str:
    """Return the error text of `load_keys`, which must be one sentence without a private key."""
    with pytest.raises(ConfigurationError) as caught:
        load_keys(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert text.endswith(".")
    assert "PRIVATE" not in text
    return text


def set_age(folder: Path, key: SigningKey, made: int) -> None:
    """Set the time from which a key signs, in Unix seconds."""
    path = public_path(folder, key.kid)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"signs_from": made}))
