"""Options of a grant: merged over roles, carried by the token, narrowed by the endpoint."""

from dataclasses import dataclass
from pathlib import Path

import msgspec

import relay
from relay.core.errors import Reason
from relay.core.grants import NO_OPTIONS, OPTION_CLAIMS, GrantOptions, _option, merged
from relay.core.tokens import Claims, Expected, mint, verify
from tests.support.scoped_tokens import CLAIMS, KEY, KEYS, NOW, claims_reason

FILES = {"core/grants.py", "settings/endpoints.py"}
"""What an option is, and how it is written in the settings. The third file is the one where it takes effect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreOptions(GrantOptions):
    """The options with one more."""

    history_messages: int = _option(
        unlimited=1000, of_roles=max, with_endpoint=min, meaning="messages of the history at most"
    )


@dataclass(frozen=True)
class Section:
    """A section of the settings that has one of the options, and other keys."""

    channels: tuple[str, ...] = ("prices.>",)
    history_messages: int = 7


def test_an_option_is_named_in_three_files() -> None:
    """A new option changes its definition, its setting and the place where it takes effect."""
    folder = Path(relay.__file__).parent
    for name in OPTION_CLAIMS:
        naming = {
            file.relative_to(folder).as_posix() for file in folder.rglob("*.py") if name in file.read_text()
        }
        assert naming > FILES, f"{name} is named in {naming}"
        assert len(naming) == 3, f"{name} is named in {naming}"


def test_one_more_field_is_a_whole_option() -> None:
    """A made-up option is read, merged, narrowed and carried by the token, with nothing but its own field."""
    trader, guest = MoreOptions.of(Section()), MoreOptions(min_interval_ms=500, history_messages=3)
    assert trader == MoreOptions(min_interval_ms=0, history_messages=7)
    both = merged([trader, guest])
    assert both == MoreOptions(min_interval_ms=0, history_messages=7)
    assert both.narrowed(guest) == guest
    assert both.to_claims() == {"history_messages": 7}
    assert MoreOptions.from_claims({"sub": "user", **both.to_claims()}) == both


def test_roles_without_a_grant_limit_nothing() -> None:
    """There is nothing to merge: what may be asked for is decided by the channels."""
    assert merged([]) == NO_OPTIONS == GrantOptions()
    assert NO_OPTIONS.to_claims() == {}


def test_a_token_carries_its_options() -> None:
    """They come back from a token as they were put into it; one that limits nothing is left out."""
    for options in (GrantOptions(min_interval_ms=250), NO_OPTIONS):
        claims = msgspec.structs.replace(CLAIMS, options=options)
        expected = Expected(issuer=claims.issuer, audience=claims.audience, origin=None)
        found = verify(mint(claims, KEY), KEYS, now=NOW, expected=expected)
        assert isinstance(found, tuple)
        assert isinstance(found[0], Claims)
        assert found[0].options == options


def test_an_option_is_a_whole_number() -> None:
    """A token whose option is anything else is refused, also when it would limit nothing."""
    for name in OPTION_CLAIMS:
        for value in ("250", 0, -1, 2.5, True, None, [250], 2**53):
            assert claims_reason({name: value}) is Reason.TOKEN_CLAIMS
        assert claims_reason({name: 250}) is None
