"""Where a session stands in the Cookie headers: which name, whole or in parts, and what was planted beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.core.errors import Reason, Refusal
from relay.sessions.cookies import MAX_CHUNKS, SessionCookies, find_all, find_session

OWN, SECURE, PLAIN = "__Host-access-token", "__Secure-authjs.session-token", "authjs.session-token"
COOKIES = SessionCookies(names=(OWN, SECURE, PLAIN))


def find(*headers: str) -> str | Reason:
    """Return the session in these Cookie headers, or why there is none."""
    found = find_session(headers, COOKIES)
    return found.reason if isinstance(found, Refusal) else found


def test_a_cookies_value_is_found_as_it_was_sent() -> None:
    """The value comes back as it was sent, among others, in quotes or not."""
    for header in (f"{OWN}=abc", f"a=b; {OWN}=abc; c=d", f"a=b;{OWN} = abc ;", f'{OWN}="abc"'):
        assert find(header) == "abc"
    assert find(f"{OWN}=a=b=c") == "a=b=c"
    assert find("a=b", f"{OWN}=abc") == "abc"


@pytest.mark.parametrize(
    "header",
    [
        *[
            "",
            "a=b",
            OWN,
            f"{OWN}=",
            f'{OWN}=""',
            f"x{OWN}=a",
            f"{OWN.lower()}=a",
            f"{PLAIN}.0=",
        ],
        *[f"{PLAIN}.=a", f"{PLAIN}.x=a", f"{PLAIN}.00=a", f"{PLAIN}.-1=a", f"{PLAIN}.0.0=a", f"{PLAIN}0=a"],
        *[f"{PLAIN}.\u0661=a", f"{PLAIN}.100=a", f"{PLAIN}. 0=a"],
    ],
)
def test_a_missing_or_empty_cookie_is_no_session(header: str) -> None:
    """Other names are others, and an empty cookie is none: so Auth.js clears them."""
    assert find(header) is Reason.SESSION_MISSING


def test_parts_are_put_together() -> None:
    """In the order of their numbers, wherever they stand."""
    assert find(f"{PLAIN}.0=abc") == "abc"
    assert find(f"{PLAIN}.1=def; a=b; {PLAIN}.0=abc") == "abcdef"
    assert find(f"{PLAIN}.2=c", f"{PLAIN}.0=a; {PLAIN}.1=b") == "abc"
    assert find(f"{PLAIN}.0=a; {PLAIN}.1=b; {PLAIN}.2=") == "ab"


@pytest.mark.parametrize(
    "header",
    [
        f"{PLAIN}.1=b",
        f"{PLAIN}.0=a; {PLAIN}.2=c",
        f"{PLAIN}.0=; {PLAIN}.1=b",
        "; ".join(f"{PLAIN}.{index}=a" for index in range(MAX_CHUNKS + 1)),
        f"{PLAIN}.99=a",
    ],
)
def test_parts_that_make_no_whole(header: str) -> None:
    """One is missing, or there are more than any session has."""
    assert find(header) is Reason.SESSION_INVALID


@pytest.mark.parametrize(
    "headers",
    [
        *[[f"{OWN}=a; {OWN}=b"], [f"{OWN}=a", f"{OWN}=b"], [f"{OWN}=a;{OWN} = b"], [f"{OWN}.0=a; {OWN}.0=b"]],
        *[[f"{PLAIN}.0=a; {PLAIN}.1=b; {PLAIN}.1=c"], [f"{PLAIN}.0=a", f"{PLAIN}.0=c; {PLAIN}.0="]],
        *[[f"{PLAIN}=a; {PLAIN}.0=b"], [f"{PLAIN}.0=a; {PLAIN}.1=b; {PLAIN}=c"]],
    ],
    ids=str,
)
def test_a_cookie_with_two_values_is_refused(headers: list[str]) -> None:
    """A name with two values, a part with two, a whole one beside parts: somebody else put one of them there."""
    assert find(*headers) is Reason.SESSION_REPEATED


@pytest.mark.parametrize(
    "headers",
    [
        *[[f"{OWN}=ab; {OWN}=ab"], [f"{OWN}=ab", f"{OWN}=ab"], [f"{OWN}=; {OWN}=ab"], [f"{OWN}=ab; {OWN}="]],
        *[[f"{OWN}.0=a; {OWN}.1=b; {OWN}.1=b"], [f"{OWN}=; {OWN}.0=a; {OWN}.1=b"], [f"{OWN}=ab; {OWN}.0="]],
    ],
    ids=str,
)
def test_the_same_value_twice_is_one_and_an_empty_one_none(headers: list[str]) -> None:
    """Browsers and proxies really send both, and nothing is in doubt."""
    assert find(*headers) == "ab"


def test_a_log_out_finds_every_session() -> None:
    """Each value of each name is one, and what can't be joined is reported."""
    assert find_all([f"{OWN}=a; {OWN}=b; {OWN}=a", f"{PLAIN}.0=c; {PLAIN}.1=d"], COOKIES) == (
        ["a", "b", "cd"],
        None,
    )
    found, unread = find_all([f"{OWN}=a; {PLAIN}.0=c; {PLAIN}.0=d"], COOKIES)
    assert found == ["a"]
    assert unread is not None
    found, unread = find_all(["; ".join(f"{OWN}={number}" for number in range(200))], COOKIES)
    assert found == ["0", "1", "2", "3", "4", "5", "6", "7"]
    assert unread is not None
    assert find_all(["a=b"], COOKIES) == ([], None)


def test_the_preferred_name_decides() -> None:
    """The first name that has a session is it; what is wrong with it is not mended by another one."""
    assert find(f"{PLAIN}=c; {SECURE}=b; {OWN}=a") == "a"
    assert find(f"{PLAIN}=c; {SECURE}.0=b") == "b"
    assert find(f"{OWN}=; {PLAIN}=c") == "c"
    assert find(f"{PLAIN}=c; {SECURE}=a; {SECURE}=b") is Reason.SESSION_REPEATED
    assert find(f"{PLAIN}=c; {SECURE}.1=b") is Reason.SESSION_INVALID


names = st.sampled_from([OWN, SECURE, PLAIN, "a"]).flatmap(
    lambda name: st.sampled_from([name, f"{name}.0", f"{name}.1", f"{name}.2", f"{name}.x"])
)
pairs = st.lists(st.tuples(names, st.text("ab", max_size=2)), max_size=8)


@given(pairs, st.integers(0, 8))
def test_a_session_has_all_parts_of_one_name_only(cookies: list[tuple[str, str]], cut: int) -> None:
    """What is found is always all of one name's values, each with one value; where headers are cut is the same."""
    one = "; ".join(f"{name}={value}" for name, value in cookies)
    found = find(one)
    halves = (cookies[:cut], cookies[cut:])
    assert find(*("; ".join(f"{name}={value}" for name, value in half) for half in halves)) == found
    if isinstance(found, Reason):
        return
    for base in (OWN, SECURE, PLAIN):
        mine = {(name, value) for name, value in cookies if value}
        whole = [value for name, value in mine if name == base]
        parts = [value for name, value in sorted(mine) if name.removeprefix(base) in (".0", ".1", ".2")]
        if found in ("".join(whole), "".join(parts)):
            return
    raise AssertionError(f"{found!r} is nobody's whole value")


@given(st.lists(st.text(st.characters(codec="latin-1"), max_size=80), max_size=4))
def test_any_header_is_read_without_an_error(headers: list[str]) -> None:
    """No header makes the reader fail, and a session that is found is never empty."""
    assert find(*headers) != ""
