"""The settings of keys and operators: what is refused, in one line each."""

from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError
from relay.settings.load import load
from tests.support.relay_process import make_relay

HASH = "0" * 64


@pytest.mark.parametrize(
    ("lines", "sentence"),
    [
        ("[tokens]\npublish_before_sign_s = -1", "tokens.publish_before_sign_s"),
        ("[tokens]\npublish_before_sign_s = 90000", "tokens.publish_before_sign_s"),
        ('[tokens]\njwks_url = "http://id.example.com/jwks.json"', "must begin with https://"),
        ('[tokens]\njwks_url = "id.example.com"', "tokens.jwks_url"),
        ('[tokens]\njwks_url = ""', "tokens.jwks_url"),
        (f'[operators.ops]\nsecret_sha256 = ["{HASH}"]', "operators.ops.may: is missing"),
        (f'[operators.ops]\nsecret_sha256 = ["{HASH}"]\nmay = []', "operators.ops.may"),
        (f'[operators.ops]\nsecret_sha256 = ["{HASH}"]\nmay = ["all"]', "operators.ops.may"),
        ('[operators.ops]\nsecret_sha256 = ["secret"]\nmay = ["read"]', "operators.ops.secret_sha256"),
        ('[operators.ops]\nsecret_sha256 = []\nmay = ["read"]', "operators.ops.secret_sha256"),
        (f'[operators."a.b"]\nsecret_sha256 = ["{HASH}"]\nmay = ["read"]', "operators"),
    ],
)
def test_a_bad_key_or_operator_is_one_line(tmp_path: Path, lines: str, sentence: str) -> None:
    """The line names the setting, says what it must be, and does not contain the digest."""
    relay = make_relay(tmp_path, extra=lines)
    with pytest.raises(ConfigurationError) as refused:
        load(relay.folder / "relay.toml")
    assert sentence in str(refused.value)
    assert HASH not in str(refused.value)


def test_an_operator_may_have_two_keys(tmp_path: Path) -> None:
    """The old and the new key are both accepted during a rotation."""
    lines = f'[operators.ops]\nsecret_sha256 = ["{HASH}", "{"1" * 64}"]\nmay = ["read", "revoke"]'
    settings = load(make_relay(tmp_path, extra=lines).folder / "relay.toml")
    assert len(settings.operators["ops"].secret_sha256) == 2
