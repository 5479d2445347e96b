"""Bearer keys: the right secret under the right name, and nothing else."""

import hashlib
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.core.errors import ConfigurationError
from relay.keys.api_keys import MAX_PRESENTED_CHARS, check_bearer, hash_secret, new_bearer_key


def test_a_new_key_is_accepted() -> None:
    """Under its name, by its hash."""
    presented, digest = new_bearer_key("pricing")
    assert check_bearer(presented, {"pricing": [digest]}) == "pricing"


def test_the_form_of_a_key() -> None:
    """Name, dot, 256 bits in base64url; the hash is SHA-256 of the secret's text, which `sha256sum` gives too."""
    presented, digest = new_bearer_key("pricing")
    assert re.fullmatch(r"pricing\.[A-Za-z0-9_-]{43}", presented)
    assert digest == hashlib.sha256(presented.split(".")[1].encode()).hexdigest()
    assert new_bearer_key("pricing")[0] != presented


@pytest.mark.parametrize("name", ["", "a.b", "a b", "é", "A", "-a", "a" * 33, "a\n", "[x]", '"', "\ud800"])
def test_names_that_cannot_be_in_the_settings(name: str) -> None:
    """A dot would end the name too early, and the rest is no name of a publisher in relay.toml."""
    with pytest.raises(ConfigurationError, match="can't be a name"):
        new_bearer_key(name)


def test_each_of_several_hashes_is_accepted_during_a_rotation() -> None:
    """During a rotation both keys are good; upper case hex is the same hash."""
    (old, old_hash), (new, new_hash) = new_bearer_key("a"), new_bearer_key("a")
    known = {"a": (old_hash.upper(), new_hash)}
    assert check_bearer(old, known) == check_bearer(new, known) == "a"
    assert check_bearer(old, {"a": [new_hash]}) is None
    assert check_bearer(old, {"a": []}) is None


def test_a_secret_is_accepted_under_its_own_name_only() -> None:
    """A secret is good under its own name only."""
    (_, first), (second_key, second) = new_bearer_key("a"), new_bearer_key("b")
    known = {"a": [first], "b": [second]}
    assert check_bearer("a." + second_key.split(".")[1], known) is None
    assert check_bearer("c." + second_key.split(".")[1], known) is None


SECRET = "a-secret-of-the-length-that-is-made-01234567"
PRESENTED, DIGEST = f"pricing.{SECRET}", hash_secret(SECRET)


@pytest.mark.parametrize(
    "presented",
    [
        *["", ".", "pricing", "pricing.", "." + PRESENTED, PRESENTED + ".", PRESENTED + "=", " " + PRESENTED],
        *[PRESENTED + "\n", PRESENTED.upper(), PRESENTED[:-1], PRESENTED.split(".")[1], "pricing." + DIGEST],
        *["Bearer " + PRESENTED, "pricing.\ud800", "pricing.é", "\ud800." + DIGEST, "x" * 5_000_000],
    ],
    ids=lambda text: ascii(text[:20]),
)
def test_what_is_not_the_key(presented: str) -> None:
    """Neither the hash nor anything around or beside the key."""
    assert check_bearer(presented, {"pricing": [DIGEST]}) is None


def test_an_empty_secret_is_never_good() -> None:
    """Not even where somebody put the hash of nothing into the settings."""
    assert check_bearer("a.", {"a": [hash_secret("")]}) is None


def test_a_key_that_is_too_long_is_not_hashed() -> None:
    """The limit is far above any key of ours."""
    secret = "s" * MAX_PRESENTED_CHARS
    assert check_bearer("a." + secret, {"a": [hash_secret(secret)]}) is None
    assert check_bearer("a." + secret[2:], {"a": [hash_secret(secret[2:])]}) == "a"


@given(st.text(st.characters(), max_size=60), st.lists(st.text(max_size=8), max_size=3))
@example("\ud800.\udfff", ["\ud800"])
def test_any_text_is_refused_without_an_error(presented: str, hashes: list[str]) -> None:
    """Whatever is presented, and whatever stands in the settings, the answer is no, and nothing raises."""
    assert check_bearer(presented, {"pricing": [DIGEST], presented.partition(".")[0]: hashes}) is None
