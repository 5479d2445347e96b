"""Settings: each mistake is one line that names the key and where it came from, and never shows a secret."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from relay.core.errors import ConfigurationError
from relay.settings.load import load
from tests.support.relay_process import PUBLISHER_SECRET, REF_KEY, SECRET, make_relay


@pytest.fixture(autouse=True)
def only_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove RELAY_* variables of the environment that runs the tests."""
    for name in os.environ:
        if name.upper().startswith("RELAY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A settings file without a mistake."""
    return make_relay(tmp_path).folder / "relay.toml"


def mistakes(path: Path | None) -> list[str]:
    """Return the lines of the error of `load`, without the path at the start of each."""
    with pytest.raises(ConfigurationError) as refused:
        load(path)
    return [line.removeprefix(f"{path}: ") for line in str(refused.value).split("\n")]


def setting(file: Path, line: str, *, section: str) -> Path:
    """Write a line into a section. It replaces the line of the same key, if there is one."""
    key = line.partition("=")[0].strip()
    head, header, rest = file.read_text().partition(f"[{section}]\n")
    body, following, tail = rest.partition("\n[")
    kept = [old for old in body.split("\n") if old.partition("=")[0].strip() != key]
    file.write_text("\n".join([head + (header or f"\n[{section}]\n") + line, *kept]) + following + tail)
    return file


def test_the_tests_own_settings_are_fine(file: Path) -> None:
    """The file that the other tests change has no mistake of its own."""
    assert load(file).limits.connections_per_session == 10


@pytest.mark.parametrize(
    ("section", "line", "complaint"),
    [
        ("public", 'url = "app.example.com"', "public.url: must be a URL that starts with http"),
        ("public", 'url = "ftp://x"', "public.url: must be a URL that starts with http"),
        ("public", 'url = "http://"', "public.url: must be a URL that starts with http"),
        ("public", 'url = "http://x/"', "public.url: must end after host and port"),
        ("public", 'url = "http://x/app"', "public.url: must end after host and port"),
        ("public", 'url = "http://x?"', "public.url: must end after host and port"),
        ("public", 'url = "http://x#"', "public.url: must end after host and port"),
        ("public", 'url = "http://user:pass@x"', "public.url: must end after host and port"),
        ("public", 'url = "http://X"', "public.url: must be in lower case"),
        ("public", 'url = "HTTP://x"', "public.url: must be in lower case"),
        ("public", 'url = "http://x:80"', "public.url: must leave out :80"),
        ("public", 'url = "http://x:"', "public.url: must be a host name in ASCII"),
        ("public", 'url = "http://x:0"', "public.url: must be a host name in ASCII"),
        ("public", 'url = "http://x:99999"', "public.url: must be a host name in ASCII"),
        ("public", 'url = "http://b\u00fccher.example"', "public.url: must be a host name in ASCII"),
        ("public", 'url = "http://x y"', "public.url: must be a host name in ASCII"),
        ("public", 'url = "http://[::1"', "public.url: must be a host name in ASCII"),
        ("public", "url = 5", "public.url: must be a text"),
        ("public", 'stream_url = "https://x"', "public.stream_url: must be a URL that starts with ws"),
        ("public", 'stream_url = "wss://x:443"', "public.stream_url: must leave out :443"),
        ("public", 'allowed_origins = ["*"]', "public.allowed_origins.0: must be a URL"),
        ("public", 'allowed_origins = ["null"]', "public.allowed_origins.0: must be a URL"),
        ("public", 'allowed_origins = ["file://"]', "public.allowed_origins.0: must be a URL"),
        ("public", 'allowed_origins = ["file://localhost"]', "public.allowed_origins.0: file:// is no origin"),
        ("public", 'allowed_origins = ["wss://a.example"]', "public.allowed_origins.0: wss:// is no origin"),
        ("public", 'allowed_origins = ["Tauri://localhost"]', "public.allowed_origins.0: must be in lower case"),
        ("public", 'allowed_origins = ["tauri://localhost/"]', "public.allowed_origins.0: must be a URL"),
        ("public", 'allowed_origins = ["tauri://*"]', "public.allowed_origins.0: must be a URL"),
        ("public", 'allowed_origins = ["https://X"]', "public.allowed_origins.0: must be in lower case"),
        ("public", 'url = "capacitor://localhost"', "public.url: must be a URL that starts with http"),
        ("csrf", 'trusted_origins = ["data://x"]', "csrf.trusted_origins.0: data:// is no origin of a page"),
        ("public", 'trusted_proxies = ["10.0.0.1/8"]', "public.trusted_proxies.0: must be an address"),
        ("public", 'trusted_proxies = ["proxy"]', "public.trusted_proxies.0: must be an address"),
        ("public", "hunter2 = 1", "public.hunter2: unknown key"),
        ("public", "trusted_proxy = []", "public.trusted_proxy: unknown key; did you mean trusted_proxies?"),
        ("publick", "url = 1", "publick: unknown key; did you mean public?"),
        ("endpoints.prices", "chanels = []", "endpoints.prices.chanels: unknown key; did you mean channels?"),
        ("bff.proxy.routes.\"/a\"", "method = []", "bff.proxy.routes./a.method: unknown key; did you mean methods?"),
        ("listen", 'http = "8000"', 'listen.http: must be "host:port"'),
        ("listen", 'http = ":8000"', 'listen.http: must be "host:port"'),
        ("listen", 'http = "x:65536"', 'listen.http: must be "host:port"'),
        ("listen", 'http = "x:\u00b2"', 'listen.http: must be "host:port"'),
        ("listen", 'http = "[::1:8000"', 'listen.http: must be "host:port"'),
        ("listen", 'http = "::1:8000"', 'listen.http: must be "host:port"'),
        ("session", 'cookie = "a b"', "session.cookie: must have 1 to 64"),
        ("session", 'cookie = "__Host-a"', "session.cookie: browsers refuse __Host-a over http"),
        ("session", 'cookie = "refresh-token"', "session.cookie and bff.refresh_cookie must differ"),
        ("session", 'verifier = "none"', "session.verifier: must be"),
        ("session", 'ref_key = "short"', "session.ref_key: must have at least 32 characters"),
        ("session", "signed = 1", "session.signed: must be"),
        ("session", 'signed = { algorithm = "none" }', "session.signed.algorithm: must be"),
        ("session", 'signed = { algorithm = "HS256" }', "session.signed: HS256 needs secret"),
        ("session", 'signed = { algorithm = "RS256", secret = "x" }', "session.signed: RS256 needs one of public_key"),
        ("tokens", "ttl_s = 31", "tokens.ttl_s: must be at most 30"),
        ("tokens", "ttl_s = 0", "tokens.ttl_s: must be at least 1"),
        ("tokens", "ttl_s = nan", "tokens.ttl_s: must be"),
        ("tokens", "transports = []", "tokens.transports: "),
        ("tokens", 'transports = ["cookie"]', "tokens.transports.0: must be"),
        ("tokens", 'default_endpoint = "nowhere"', "tokens.default_endpoint: there is no [endpoints.nowhere]"),
        ("endpoints.prices", 'path = "ws/prices"', "endpoints.prices.path: must be a path"),
        ("endpoints.prices", 'path = "/ws/../x"', "endpoints.prices.path: must be a path"),
        ("endpoints.prices", 'path = "/ws/prices\\n"', "endpoints.prices.path: must be a path"),
        ("endpoints.prices", 'path = "/ws/depth"', "endpoints: two endpoints have the same path"),
        ("endpoints.prices", "channels = []", "endpoints.prices.channels: "),
        ("endpoints.prices", 'channels = ["a..b"]', "endpoints.prices.channels.0: 'a..b' is not a channel or pattern"),
        ("endpoints.prices", 'mode = "fast"', "endpoints.prices.mode: must be \"latest\""),
        ("endpoints.Prices", 'path = "/x"\nchannels = ["x"]', "endpoints.Prices: the name must have"),
        ("grants", 'trader.nowhere = ["a"]', "grants.trader.nowhere: there is no [endpoints.nowhere]"),
        ("grants", 'guest.prices = ["depth.>"]', "grants.guest.prices: depth.> lies outside endpoints.prices.channels"),
        ("grants", 'guest.prices = [">"]', "grants.guest.prices: > lies outside endpoints.prices.channels"),
        ("publishers.pricing", "secret_sha256 = []", "publishers.pricing.secret_sha256: "),
        ("publishers.pricing", 'secret_sha256 = ["HUNTER2"]', "publishers.pricing.secret_sha256.0: must be 64 hex"),
        ("publishers.pricing", "channels = []", "publishers.pricing.channels: "),
        ("bff", 'backend = "http://x/api"', "bff.backend: must end after host and port"),
        ("bff", 'login_path = "//evil.example/login"', "bff.login_path: must be a path"),
        ("bff", 'login_path = "/login?x=1"', "bff.login_path: must be a path"),
        ("bff", 'same_site = "none"', "bff.same_site: browsers refuse cookies with SameSite=None over http"),
        ("bff", 'same_site = "strict"', 'bff.same_site: must be "lax" or "none"'),
        ("bff", 'login_fields = ["username"]', "bff: login_fields: username names the user"),
        ("bff", 'login_fields = ["password"]', "bff: login_names and login_fields: password is always passed on"),
        ("bff", 'login_fields = ["a.b"]', "bff.login_fields.0: must have 1 to 64"),
        ("bff", "login_names = []", "bff.login_names: must not be empty"),
        ("bff", 'login_codes = ["a b"]', "bff.login_codes.0: must have 1 to 64"),
        ("bff.fields", 'access_token = "data..x"', "bff.fields.access_token: must be the name of a member"),
        ("bff.fields", 'access_token = ""', "bff.fields.access_token: must be the name of a member"),
        ("bff", "timeout_s = 0", "bff.timeout_s: must be more than 0"),
        ("bff", "timeout_s = inf", "bff.timeout_s: must be at most 60"),
        ("limits", 'tokens_per_session = "30"', 'limits.tokens_per_session: must be "count/unit"'),
        ("limits", 'tokens_per_session = "0/minute"', 'limits.tokens_per_session: must be "count/unit"'),
        ("limits", 'tokens_per_session = "\u0661/minute"', 'limits.tokens_per_session: must be "count/unit"'),
        ("limits", "connections_per_session = 0", "limits.connections_per_session: must be at least 1"),
        ("log", 'level = "loud"', "log.level: must be \"debug\""),
        ("log", "level = 1979-05-27", "log.level: must be \"debug\""),
        ("csrf", 'trusted_origins = ["https://*.example.com"]', "csrf.trusted_origins.0: must be a host name"),
    ],
)  # fmt: skip
def test_a_bad_value_is_one_line(file: Path, section: str, line: str, complaint: str) -> None:
    """The line names the key, says what it must be, and is the only one."""
    [found] = mistakes(setting(file, line, section=section))
    assert found.startswith(complaint), found
    assert "Traceback" not in found
    assert "HUNTER2" not in found


@pytest.mark.parametrize(
    ("section", "line", "complaint"),
    [
        ("public", "url = true", "public.url: must be a text"),
        ("public", 'allowed_origins = "https://a.example"', "public.allowed_origins: must be a list"),
        ("tokens", "ttl_s = 1.5", "tokens.ttl_s: must be a whole number"),
        ("tokens", 'ttl_s = "ten"', "tokens.ttl_s: must be a whole number"),
        ("tokens", "ttl_s = []", "tokens.ttl_s: must be a whole number"),
        ("tokens", "ttl_s = 31", "tokens.ttl_s: must be at most 30"),
        ("tokens", "ttl_s = 0", "tokens.ttl_s: must be at least 1"),
        ("tokens", "keys_dir = 1", "tokens.keys_dir: must be a path, written as a text"),
        (
            "tokens",
            'transports = ["cookie"]',
            'tokens.transports.0: must be "subprotocol", "query" or "first_message"',
        ),
        ("bff", 'timeout_s = "soon"', "bff.timeout_s: must be a number"),
        ("bff", "timeout_s = 0", "bff.timeout_s: must be more than 0"),
        ("csrf", 'require_header = "perhaps"', "csrf.require_header: must be true or false"),
        ("csrf", "require_header = 7", "csrf.require_header: must be true or false"),
        ("audit", 'stdout = "all"', 'audit.stdout: must be "nothing", "checkpoints" or "records"'),
        ("operators.a", f'secret_sha256 = ["{"0" * 64}"]', "operators.a.may: is missing"),
        (
            "operators.b",
            f'secret_sha256 = ["{"0" * 64}"]\nmay = ["all"]',
            'operators.b.may.0: must be "read", "revoke" or "reset"',
        ),
        (
            "operators.c",
            f'secret_sha256 = [{", ".join([chr(34) + "0" * 64 + chr(34)] * 3)}]\nmay = ["read"]',
            "operators.c.secret_sha256: must have at most 2 items; remove some",
        ),
        ("session", "ref_key = 5", "session.ref_key: must be a text"),
        ("session", 'signed = "yes"', "session.signed: must be a section with keys of its own"),
    ],
)
def test_a_wrong_type_or_bound_is_in_the_words_of_the_settings(
    file: Path, section: str, line: str, complaint: str
) -> None:
    """No text of the library, no type of Python and no pattern is left in an error."""
    assert mistakes(setting(file, line, section=section)) == [complaint]


def test_an_empty_folder_has_no_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line says that there is no relay.toml; with a variable, the first line says what was read."""
    monkeypatch.chdir(tmp_path)
    (only,) = mistakes(None)
    assert only.startswith("There are no settings: this folder has no relay.toml")
    monkeypatch.setenv("RELAY_LOG__LEVEL", "info")
    first, *rest = mistakes(None)
    assert first == "settings: only RELAY_* variables were read, because this folder has no relay.toml"
    assert len(rest) == 3


def test_several_mistakes_are_several_lines(file: Path) -> None:
    """All mistakes are reported at once, so that a person can correct them together."""
    setting(file, "ttl_s = 99", section="tokens")
    setting(file, 'level = "loud"', section="log")
    setting(file, "hunter2 = 1", section="public")
    assert len(mistakes(file)) == 3


def test_required_sections_are_named(tmp_path: Path) -> None:
    """An empty file says what is missing."""
    (tmp_path / "relay.toml").write_text("")
    assert mistakes(tmp_path / "relay.toml") == [
        "public: is missing; write a section [public], as README.md has one",
        "session: is missing; write a section [session], as README.md has one",
        "endpoints: is missing; write a section [endpoints], as README.md has one",
    ]


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe",
        b"\x00",
        b"{}",
        b"[public",
        b"url = ",
        b"[public]\n[public]\n",
        b"a = " + b"[" * 10_000,
        b"a = " + b"{a=" * 10_000,
        b"a = 1" + b"0" * 5000,
        b'"a\\nb\\u001b[31m" = 1',
        b"<html>",
        b"\x7fELF" + bytes(range(256)),
    ],
)
def test_a_file_that_is_no_toml_is_one_line(tmp_path: Path, content: bytes) -> None:
    """Garbage, other formats and deeply nested values are refused like a typing error."""
    (tmp_path / "relay.toml").write_bytes(content)
    with pytest.raises(ConfigurationError) as refused:
        load(tmp_path / "relay.toml")
    lines = str(refused.value).split("\n")
    assert all(line.startswith(f"{tmp_path}/relay.toml: ") and line.isprintable() for line in lines)
    assert len(lines) == 1 or "unknown key" in lines[-1]


def test_a_file_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    """The line says whether the file is missing or is a folder."""
    assert mistakes(tmp_path / "none.toml") == ["there is no such file; name the settings file with --config"]
    assert mistakes(tmp_path) == ["can't be read: Is a directory"]


def test_a_file_that_may_not_be_read_is_one_line(file: Path) -> None:
    """The line says that the file of another user can't be read."""
    file.chmod(0)
    own = os.geteuid()
    if own == 0:  # root may read everything
        os.seteuid(65534)
    try:
        found = mistakes(file)
    finally:
        os.seteuid(own)
    assert found == ["can't be read: Permission denied"]


@pytest.mark.parametrize(
    ("name", "value", "complaint"),
    [
        ("RELAY_LOG__LEVEL", "loud", "log.level: must be \"debug\""),
        ("relay_log__level", "loud", "log.level: must be \"debug\""),
        ("RELAY_LOG__LEVELS", "info", "log.levels: unknown key"),
        ("RELAY_LOGG__LEVEL", "info", "unknown variable"),
        ("Relay_Logg__Level", "info", "unknown variable"),
        ("RELAY_", "x", "unknown variable"),
        ("RELAY_SECRET", "HUNTER2", "unknown variable"),
        ("RELAY_PUBLIC", "HUNTER2", "can't be read as JSON"),
        ("RELAY_PUBLIC", "", "can't be read as JSON"),
        ("RELAY_PUBLIC", "[" * 20_000, "can't be read as JSON"),
        ("RELAY_PUBLIC", "1" * 5000, "can't be read as JSON"),
        ("RELAY_PUBLIC", "5", "public: must be"),
        ("RELAY_SESSION", '{"ref_key": "HUNTER2"', "can't be read as JSON"),
        ("RELAY_SESSION__REF_KEY", "HUNTER2", "session.ref_key: must have at least 32 characters"),
        ("RELAY_SESSION__SIGNED", '"HUNTER2"', "session.signed: must be"),
        ("RELAY_ENDPOINTS__PRICES__CHANNELS", "prices.>", "can't be read as JSON"),
        ("RELAY_PUBLISHERS__PRICING__SECRET_SHA256", '["HUNTER2"]', "publishers.pricing.secret_sha256.0: must be 64"),
        ("RELAY_PUBLIC__URL", "\udcff", "public.url: "),
        ("RELAY_PUBLIC__", "x", "public.: unknown key"),
    ],
)  # fmt: skip
def test_a_bad_variable_is_one_line(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, complaint: str
) -> None:
    """The line names the variable and not the file, and does not repeat the value."""
    monkeypatch.setenv(name, value)
    [found] = mistakes(file)
    assert found.startswith(f"{name}: {complaint}"), found
    assert "HUNTER2" not in found


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RELAY_PORT", "tcp://10.0.0.1:8000"),
        ("RELAY_PORT_8000_TCP", "tcp://10.0.0.1:8000"),
        ("RELAY_PORT_8000_TCP_PROTO", "tcp"),
        ("RELAY_PORT_8000_TCP_PORT", "8000"),
        ("RELAY_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("RELAY_PORT_53_UDP", "udp://10.0.0.1:53"),
        ("RELAY_SERVICE_HOST", "10.0.0.1"),
        ("RELAY_SERVICE_PORT", "8000"),
        ("RELAY_SERVICE_PORT_HTTP", "8000"),
        ("RELAY_SERVICE_PORT_STREAM_WS", "8001"),
    ],
)
def test_variables_of_kubernetes_are_ignored(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    """Kubernetes sets them in each pod of a namespace that has a Service named relay."""
    before = load(file).model_dump()
    monkeypatch.setenv(name, value)
    assert load(file).model_dump() == before


@pytest.mark.parametrize(
    "name", ["RELAY_PORTS", "RELAY_PORT_TCP", "RELAY_SERVICE", "RELAY_SERVICE_PORTS", "RELAY_PORT__HTTP"]
)
def test_names_that_only_look_like_those_of_kubernetes_are_refused(
    file: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """They may be misspelt settings."""
    monkeypatch.setenv(name, "8000")
    with pytest.raises(ConfigurationError, match="unknown variable"):
        load(file)


def test_variables_win_over_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A nested setting has two underscores; lists and sections are JSON; the rest of the file stays."""
    monkeypatch.setenv("RELAY_PUBLIC__URL", "https://other.example")
    monkeypatch.setenv("RELAY_ENDPOINTS__PRICES__CHANNELS", '["prices.>", "fx.>"]')
    monkeypatch.setenv("RELAY_LIMITS", '{"channels": 5}')
    found = load(file)
    assert found.public.url == "https://other.example"
    assert found.public.stream_url.startswith("ws://127.0.0.1:")
    assert found.sockets["prices"].channels == ("prices.>", "fx.>")
    assert (found.limits.channels, found.limits.tokens_per_session) == (5, "10000/minute")


def test_variables_alone_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container needs no settings file."""
    monkeypatch.setenv("RELAY_PUBLIC", '{"url":"https://a.example","stream_url":"wss://s.example"}')
    monkeypatch.setenv("RELAY_SESSION__REF_KEY", "r" * 32)
    monkeypatch.setenv("RELAY_SESSION__SIGNED", '{"algorithm":"HS256","secret":"x","audience":"a"}')
    monkeypatch.setenv("RELAY_ENDPOINTS", '{"prices":{"path":"/ws/prices","channels":["prices.>"]}}')
    assert load(None).allowed_origins == {"https://a.example"}


def test_relative_paths_are_the_files_own(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The working folder of the process does not matter."""
    monkeypatch.chdir("/")
    found = load(file)
    assert found.tokens.keys_dir == file.parent / "keys"
    assert found.audit.path == file.parent / "audit.jsonl"
    assert found.engine.state_path == file.parent / "relay-state.db"


def test_secrets_show_nowhere(file: Path) -> None:
    """No secret is in a repr, a text, a dump or the JSON of the settings or of a section."""
    found = load(file)
    shown = [
        repr(found),
        str(found),
        found.model_dump_json(),
        str(found.model_dump()),
        repr(found.session.signed),
    ]
    shown += [f"{found.session.ref_key}", f"{found.session.signed}", repr(found.publishers)]
    for secret in (SECRET, REF_KEY, PUBLISHER_SECRET):
        assert not [text for text in shown if secret in text]


@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
        max_leaves=6,
    ),
    st.sampled_from(
        [
            *(
                "PUBLIC",
                "LISTEN",
                "SESSION",
                "TOKENS",
                "ENDPOINTS",
                "GRANTS",
                "PUBLISHERS",
                "CSRF",
                "BFF",
                "LIMITS",
            ),
            *(
                "SESSION__SIGNED",
                "ENDPOINTS__PRICES",
                "PUBLIC__URL",
                "PUBLIC__TRUSTED_PROXIES",
                "LISTEN__HTTP",
            ),
        ]
    ),
)
def test_any_value_is_settings_or_a_mistake(file: Path, value: Any, section: str) -> None:
    """With any JSON in a variable, `load` succeeds or reports printable lines."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(f"RELAY_{section}", json.dumps(value).replace("\0", ""))
        try:
            load(file)
        except ConfigurationError as error:
            lines = str(error).split("\n")
        else:
            lines = []
        assert all(line.isprintable() and line.startswith(("RELAY_", str(file))) for line in lines), lines


def test_a_byte_order_mark_does_not_matter(tmp_path: Path) -> None:
    """relay.toml may begin with a BOM, as editors on Windows write it."""
    relay = make_relay(tmp_path)
    file = relay.folder / "relay.toml"
    before = load(file)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert load(file).model_dump() == before.model_dump()
