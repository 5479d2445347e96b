"""The session section of relay.toml: what each verifier needs, what can't be combined, and what is made of it."""

import base64
import json
import re
from pathlib import Path

import pytest

from relay.core.errors import ConfigurationError, Refusal
from relay.server.session_verifier import session_cookies, session_verifier
from relay.sessions.base import Session
from relay.settings.load import Settings, load
from tests.support import authjs_sessions
from tests.support.backends import running_backend
from tests.support.relay_process import make_relay, with_session
from tests.support.signed_sessions import NOW, PAYLOAD, RSA, SECRET, public_pem, token

SIGNED = f'signed = {{ algorithm = "HS256", secret = "{"s" * 40}", require = {{ token_use = "access" }} }}'
UPSTREAM = 'upstream = { me = "http://backend:9000/auth/me" }'
AUTHJS = f'authjs = {{ secrets = ["{authjs_sessions.SECRET}"] }}'
REQUIRE = 'require = { token_use = "access" }'


@pytest.fixture(autouse=True)
def only_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep the environment's settings out of the tests."""
    for name in ("VERIFIER", "SIGNED", "UPSTREAM", "AUTHJS", "COOKIE", "CLAIMS"):
        monkeypatch.delenv(f"RELAY_SESSION__{name}", raising=False)


def settings(folder: Path, *lines: str, https: bool = False) -> Settings:
    """Load settings whose session section has these lines, and none of the usual verifier's."""
    make_relay(folder)
    file = folder / "relay.toml"
    old = [line for line in file.read_text().split("\n") if not line.startswith("signed = ")]
    text = "\n".join(old).replace("[session]\n", "\n".join(["[session]", *lines, ""]))
    if https:
        text = text.replace('url = "http://', 'url = "https://', 1)
    file.write_text(text)
    return load(file)


def mistake(folder: Path, *lines: str) -> str:
    """Return the one line that these settings are refused with, without the file's name."""
    with pytest.raises(ConfigurationError) as raised:
        settings(folder, *lines)
    [line] = str(raised.value).split("\n")
    return line.removeprefix(f"{folder / 'relay.toml'}: ")


@pytest.mark.parametrize(
    ("lines", "order"),
    [
        ([SIGNED], ("signed",)),
        (['verifier = "signed"', SIGNED], ("signed",)),
        (['verifier = "upstream"', UPSTREAM], ("upstream",)),
        (['verifier = ["authjs"]', AUTHJS], ("authjs",)),
        (
            ['verifier = ["authjs", "signed", "upstream"]', SIGNED, UPSTREAM, AUTHJS],
            ("authjs", "signed", "upstream"),
        ),
    ],
)
def test_verifiers_are_one_name_or_a_list(tmp_path: Path, lines: list[str], order: tuple[str, ...]) -> None:
    """One by its name, or several in a list; signed is the default."""
    assert settings(tmp_path, *lines).session.verifier == order


@pytest.mark.parametrize(
    ("lines", "complaint"),
    [
        (
            ['verifier = "none"', SIGNED],
            "session.verifier: must be signed, upstream, authjs, or a list",
        ),
        (["verifier = []", SIGNED], "session.verifier: must be"),
        (["verifier = 7", SIGNED], "session.verifier: must be"),
        (['verifier = ["signed", 7]', SIGNED], "session.verifier: must be"),
        (['verifier = ["signed", "signed"]', SIGNED], "session.verifier: names a verifier twice"),
        (['verifier = ["upstream", "signed"]', SIGNED, UPSTREAM], "session.verifier: upstream accepts every"),
        ([], "session: verifier = 'signed' needs session.signed"),
        (['verifier = "upstream"'], "session: verifier = 'upstream' needs session.upstream"),
        (['verifier = ["signed", "authjs"]', SIGNED], "session: verifier = 'authjs' needs session.authjs"),
        ([SIGNED, UPSTREAM], "session: session.upstream is set, and verifier does not name upstream"),
        (['verifier = "authjs"', AUTHJS, SIGNED], "session: session.signed is set, and verifier does not"),
        (['verifier = "upstream"', "upstream = { }"], "session.upstream.me: is missing"),
        (
            ['verifier = "authjs"', "authjs = { secrets = [] }"],
            "session.authjs.secrets: must not be empty",
        ),
    ],
)
def test_what_does_not_fit_together(tmp_path: Path, lines: list[str], complaint: str) -> None:
    """A section that nobody reads is a mistake as well: its owner believes that it is in force."""
    assert mistake(tmp_path, *lines).startswith(complaint)


@pytest.mark.parametrize(
    "me",
    [
        *[
            "ftp://backend/me",
            "backend/me",
            "http://",
            "http:///me",
            "https://user:x@backend/me",
            "http://b/me#a",
        ],
        *["http://b/a b", "http://b\u00fccher/me", "http://b:99999/", "http://[::1/me", "http://b/\\u0007"],
    ],
)
def test_addresses_that_nobody_can_ask(tmp_path: Path, me: str) -> None:
    """The sentence shows what one looks like."""
    line = mistake(tmp_path, 'verifier = "upstream"', f'upstream = {{ me = "{me}" }}')
    assert line.startswith("session.upstream.me: must ")


@pytest.mark.parametrize("cache", ["5.1", "-1", "60"])
def test_answers_are_not_kept_for_long(tmp_path: Path, cache: str) -> None:
    """Five seconds are the most: who was logged out at the backend must not stay."""
    line = mistake(
        tmp_path, 'verifier = "upstream"', f'upstream = {{ me = "http://b/me", cache_s = {cache} }}'
    )
    assert line.startswith("session.upstream.cache_s: must be")


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ("", "session.signed: RS256 needs one of public_key, public_key_file and jwks_url"),
        ('public_key = "a", jwks_url = "https://id/jwks",', "session.signed: RS256 needs one of public_key"),
        ('secret = "a", jwks_url = "https://id/jwks",', "session.signed: RS256 needs one of public_key"),
        (
            'jwks_url = "http://id.example.com/jwks",',
            "session.signed.jwks_url: A JWKS URL must begin with https",
        ),
        (
            'jwks_url = "http://10.1.2.3/jwks",',
            "session.signed.jwks_url: A JWKS URL must begin with https://; http is for this machine only "
            "(jwks_private_http = true allows it in a private network)",
        ),
        (
            'jwks_url = "http://192.0.3.1/jwks", jwks_private_http = true,',
            "session.signed.jwks_url: A JWKS URL must begin with https://: 192.0.3.1 is not in a private network",
        ),
        (
            'secret_base64 = "a", jwks_url = "https://id/jwks",',
            "session.signed: RS256 needs one of public_key",
        ),
        ('jwks_url = "https://u@id.example.com/",', "session.signed.jwks_url: A JWKS URL must have no user"),
    ],
)
def test_where_keys_come_from(tmp_path: Path, keys: str, complaint: str) -> None:
    """From one place, and a safe one."""
    line = mistake(tmp_path, f'signed = {{ algorithm = "RS256", {keys} {REQUIRE} }}')
    assert line.startswith(complaint)


def test_a_secret_is_not_published(tmp_path: Path) -> None:
    """HMAC algorithms take a secret and no public key."""
    keys = 'secret = "s", jwks_url = "https://id/jwks"'
    line = mistake(tmp_path, f'signed = {{ algorithm = "HS256", {keys}, {REQUIRE} }}')
    assert line.startswith(
        "session.signed: HS256 needs secret or secret_base64, and no public_key, public_key_file or jwks_url"
    )


@pytest.mark.parametrize(
    "text",
    [
        'issuer = "https://id.example.com "',
        'audience = "\\napi"',
        'typ = "at+jwt\\u200b"',
        'require = { a = "b " }',
    ],
)
def test_white_space_around_a_text_that_is_compared(tmp_path: Path, text: str) -> None:
    """It would refuse each session."""
    name = text.partition(" ")[0]
    more = "" if name == "require" else f", {REQUIRE}"
    line = mistake(tmp_path, f'signed = {{ algorithm = "HS256", secret = "{"s" * 40}", {text}{more} }}')
    assert line.startswith(f"session.signed.{name}: begins or ends with white space")
    line = mistake(tmp_path, SIGNED, 'claims = { roles = "roles " }')
    assert line.startswith("session.claims.roles: begins or ends with white space")


@pytest.mark.parametrize(
    "keys", ["", 'secret = "s", secret_base64 = "c3M=",', 'secret_base64 = "c3M=", public_key = "k",']
)
def test_one_secret_is_needed(tmp_path: Path, keys: str) -> None:
    """Either as it is, or in base64."""
    line = mistake(tmp_path, f'signed = {{ algorithm = "HS256", {keys} {REQUIRE} }}')
    assert line.startswith("session.signed: HS256 needs secret or secret_base64, and no")


async def test_a_secret_in_base64(tmp_path: Path) -> None:
    """The backend signs with the bytes that the setting encodes. Too few of them are refused at the start."""
    encoded = base64.b64encode(SECRET).decode()
    found = settings(tmp_path, f'signed = {{ algorithm = "HS256", secret_base64 = "{encoded}", {REQUIRE} }}')
    assert isinstance(await session_verifier(found).verify(token(), now=NOW), Session)
    assert encoded not in repr(found) + found.model_dump_json()
    short = base64.b64encode(b"s" * 31).decode()
    found = settings(tmp_path, f'signed = {{ algorithm = "HS256", secret_base64 = "{short}", {REQUIRE} }}')
    with pytest.raises(ConfigurationError, match="has 31 bytes, and HS256 needs at least 32"):
        session_verifier(found)


async def test_a_public_key_in_the_settings_or_a_file(tmp_path: Path) -> None:
    """In PEM form both; the file is meant from the settings' own folder."""
    import jwt

    pem = public_pem(RSA).decode()
    (tmp_path / "backend.pem").write_text(pem)
    good = jwt.encode(PAYLOAD, RSA, algorithm="RS256")
    for keys in (f'public_key = """{pem}"""', 'public_key_file = "backend.pem"'):
        found = settings(tmp_path, f'signed = {{ algorithm = "RS256", {keys}, {REQUIRE} }}')
        session = await session_verifier(found).verify(good, now=NOW)
        assert isinstance(session, Session), session


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """The line names the setting and the file."""
    found = settings(tmp_path, f'signed = {{ algorithm = "RS256", public_key_file = "no.pem", {REQUIRE} }}')
    with pytest.raises(
        ConfigurationError, match=r"session\.signed\.public_key_file: .*no\.pem can't be read"
    ):
        session_verifier(found)


async def test_all_three_in_a_row(tmp_path: Path) -> None:
    """What the settings name is what is made, each with the settings' claims and reference key."""
    found = settings(
        tmp_path,
        'verifier = ["signed", "authjs"]',
        SIGNED,
        f'authjs = {{ secrets = ["{authjs_sessions.SECRET}"], cookies = ["shop.session"] }}',
        'claims = { subject = "user.id", roles = "user.roles" }',
    )
    verifier = session_verifier(found)
    payload = {"user": {"id": "u-1", "roles": ["guest"]}, "exp": NOW + 60, "iat": NOW}
    session = await verifier.verify(authjs_sessions.encrypted(payload, salt="shop.session"), now=NOW)
    assert isinstance(session, Session), session
    assert (session.subject, session.roles) == ("u-1", ("guest",))
    assert isinstance(await verifier.verify(authjs_sessions.encrypted(payload), now=NOW), Refusal)
    assert isinstance(await verifier.verify(token(), now=NOW), Refusal)
    await verifier.aclose()


def test_sessions_are_read_from_the_configured_cookies(tmp_path: Path) -> None:
    """In the session cookie, and in Auth.js's: behind https only in those that a page over http can't set."""
    names = ("authjs.session-token", "next-auth.session-token")
    secure = tuple(f"__Secure-{name}" for name in names)
    signed = session_cookies(settings(tmp_path, SIGNED))
    assert signed.names == ("access-token",)
    authjs = session_cookies(settings(tmp_path, 'verifier = "authjs"', AUTHJS))
    assert authjs.names == names
    both = session_cookies(settings(tmp_path, 'verifier = ["authjs", "signed"]', SIGNED, AUTHJS, https=True))
    assert both.names == ("access-token", *secure)


def test_secrets_show_nowhere(tmp_path: Path) -> None:
    """Not in a repr, a dump or JSON of the settings, and not in a complaint about them."""
    found = settings(tmp_path, 'verifier = ["signed", "authjs"]', SIGNED, AUTHJS)
    for shown in (
        repr(found),
        found.model_dump_json(),
        str(found.model_dump()),
        repr(session_verifier(found)),
    ):
        assert authjs_sessions.SECRET not in shown
        assert "s" * 40 not in shown
    short = settings(tmp_path, 'verifier = "authjs"', 'authjs = { secrets = ["hunter2"] }')
    with pytest.raises(ConfigurationError) as raised:
        session_verifier(short)
    assert "hunter2" not in str(raised.value)


@pytest.mark.parametrize(
    ("cookie", "verifier"),
    [("__Host-access-token", "authjs"), ("connect.sid", "signed"), ("a!#$%&'*+.^_`|~-z", "signed")],
)
def test_cookie_names_that_are_fine(tmp_path: Path, cookie: str, verifier: str) -> None:
    """A name may have every character of RFC 6265, and one that nothing uses needs no https."""
    lines = {"authjs": ('verifier = "authjs"', AUTHJS), "signed": (SIGNED,)}[verifier]
    found = settings(tmp_path, *lines)
    file = tmp_path / "relay.toml"
    text = re.sub(
        r"^cookie = .*$", lambda _: f"cookie = {json.dumps(cookie)}", file.read_text(), flags=re.MULTILINE
    )
    file.write_text(re.sub(r"^refresh_cookie = .*$", "", text, flags=re.MULTILINE))
    assert found.bff.backend is None
    assert load(file).session.cookie == cookie


async def test_an_opaque_cookie_of_another_framework(tmp_path: Path) -> None:
    """The session of connect.sid has a % and a colon. The backend gets exactly what the cookie holds."""
    value = "s%3AkF3.Zx_-!$&'()*+/:<=>?@[]^`{|}~"
    async with running_backend() as backend:
        backend.answers({"sub": "u1", "roles": ["trader"]})
        made = with_session(
            make_relay(tmp_path), 'verifier = "upstream"', f'upstream = {{ me = "{backend.url}" }}'
        )
        file = made.folder / "relay.toml"
        file.write_text(
            re.sub(r'^cookie = "[^"]*"', 'cookie = "connect.sid"', file.read_text(), flags=re.MULTILINE)
        )
        made.start()
        try:
            answer = await made.ask(headers={"Cookie": f"connect.sid={value}; access-token=x"})
            assert answer.status_code == 200, answer.text
        finally:
            made.stop()
        assert backend.calls == [f"Bearer {value}"]
