"""SIGHUP: what a running relay takes from new settings, over real processes and without TLS."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from relay.limits.requests import Rates
from relay.server.reload import named_settings
from relay.settings.sections import Limits
from tests.support.engines import until
from tests.support.http_client import http_client
from tests.support.operators import OPERATORS, OPS, READER, operate
from tests.support.proxied_backend import ProxiedBackend, call, ok
from tests.support.publisher_socket import publishing
from tests.support.relay_process import PUBLISHER_KEY, PUBLISHER_SECRET, Relay, running
from tests.support.reloading import reload


def digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


OLD = f'secret_sha256 = ["{digest(PUBLISHER_SECRET)}"]'
NEW_KEY = "pricing.the-new-secret"
NEW = f'secret_sha256 = ["{digest("the-new-secret")}"]'
BOTH = f'secret_sha256 = ["{digest(PUBLISHER_SECRET)}", "{digest("the-new-secret")}"]'
QUOTA = """[publishers.slow]
secret_sha256 = ["{}"]
channels = ["slow.>"]
rate = "{}"

[endpoints.depth]"""


@pytest.fixture
def relay(tmp_path: Path) -> Iterator[Relay]:
    """A relay without TLS, with three operators."""
    with running(tmp_path, extra=OPERATORS) as relay:
        yield relay


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """The relay of the tests after which the settings are what they were."""
    with running(tmp_path_factory.mktemp("shared"), extra=OPERATORS) as relay:
        yield relay


async def test_nothing_changes_without_a_change(relay: Relay) -> None:
    """SIGHUP without TLS does not end the relay: open connections and sockets of publishers stay, and get prices."""
    async with relay.connect() as socket, publishing(relay) as publisher:
        await socket.read("error")  # nothing subscribed: the token has a pattern
        await socket.send(type="subscribe", channels=["prices.X"])
        await socket.read("subscribed")
        said = await reload(relay)
        assert (said["changed"], said["needs_restart"], said["publisher_sockets_ended"]) == ([], [], 0)
        await publisher.send(publisher.line("prices.X", 1))
        assert (await publisher.next())["type"] == "ack"
        assert (await socket.read("snapshot"))["data"] == 1
        assert (await relay.publish("prices.X", 2)).status_code == 200
    assert relay.stop() == 0


async def test_a_publishers_key_is_rotated_without_a_restart(relay: Relay) -> None:
    """Old and new key, then the new one alone: the old key's socket ends at once, the new key's goes on."""
    assert (await relay.publish_raw(b"{}", key=NEW_KEY)).status_code == 401
    async with publishing(relay) as old:
        said = await reload(relay, (OLD, BOTH))
        assert said["changed"] == ["publishers.pricing.secret_sha256"]
        async with publishing(relay, NEW_KEY) as new:
            said = await reload(relay, (BOTH, NEW))
            assert said["publisher_sockets_ended"] == 1
            assert (await old.next())["code"] == "invalid_key"
            assert await old.closed() == (3000, "invalid_key")
            await new.send(new.line("prices.X", 1))
            assert (await new.next())["type"] == "ack"
    assert (await relay.publish("prices.X", 1)).status_code == 401
    with pytest.raises(InvalidStatus, match="401"):
        async with publishing(relay):
            pass
    record = await relay.audited("publish.denied", reason="publisher_unknown")
    assert record["relay"]["publisher"]["id"] in ("pricing", "")


async def test_a_removed_publisher_ends_and_another_one_begins(relay: Relay) -> None:
    """A section that is added or removed is one name in the log; the counts of a name stay."""
    async with publishing(relay) as old:
        await old.send(old.line("prices.X", 1))
        assert (await old.next())["type"] == "ack"
        said = await reload(relay, ("[publishers.pricing]", "[publishers.other]"))
        assert said["changed"] == ["publishers.other", "publishers.pricing"]
        assert (await old.next())["code"] == "invalid_key"
    rows = (await operate(relay, "GET", "/v1/publishers")).json()["publishers"]
    assert [row["publisher"] for row in rows] == ["other"]
    assert (await relay.publish_raw(b"{}", key=f"other.{PUBLISHER_SECRET}")).status_code == 400
    await reload(relay, ("[publishers.other]", "[publishers.pricing]"))
    (row,) = (await operate(relay, "GET", "/v1/publishers")).json()["publishers"]
    assert (row["publisher"], row["published"], row["connections"]) == ("pricing", 1, 0)


async def test_channels_of_a_publisher_count_at_once(relay: Relay) -> None:
    """Also on an open socket, which stays open."""
    async with publishing(relay) as publisher:
        await publisher.send(publisher.line("trades.X", 1))
        assert (await publisher.next())["type"] == "ack"
        await reload(relay, ('channels = ["prices.>", "trades.>"]', 'channels = ["prices.>"]'))
        await publisher.send(publisher.line("trades.X", 2), publisher.line("prices.X", 2))
        assert (await publisher.next())["code"] == "forbidden"
        assert (await publisher.next())["type"] == "ack"


async def test_a_quota_stays_where_it_is_the_same(relay: Relay) -> None:
    """What was used up is not given back by a reload; a new rate begins with a full bucket."""
    slow, message = "slow.secret", b'{"channel":"slow.X","data":1}'
    await reload(relay, ("[endpoints.depth]", QUOTA.format(digest("secret"), "1/hour")))
    assert (await relay.publish_raw(message, key=slow)).status_code == 200
    assert (await relay.publish_raw(message, key=slow)).status_code == 429
    await reload(relay, (OLD, BOTH))
    assert (await relay.publish_raw(message, key=slow)).status_code == 429
    await reload(relay, ('"1/hour"', '"2/hour"'))
    assert (await relay.publish_raw(message, key=slow)).status_code == 200


async def test_an_operator_loses_the_key_and_a_permission(relay: Relay) -> None:
    """Both count for the next call."""
    assert (await operate(relay, "GET", "/v1/stats", key=READER)).status_code == 200
    said = await reload(
        relay,
        ("[operators.reader]", "[operators.other]"),
        ('may = ["read", "revoke", "reset"]', 'may = ["read"]'),
    )
    assert said["changed"] == ["operators.ops.may", "operators.other", "operators.reader"]
    assert (await operate(relay, "GET", "/v1/stats", key=READER)).status_code == 401
    assert (await operate(relay, "GET", "/v1/stats", key=OPS)).status_code == 200
    assert (await operate(relay, "POST", "/v1/channels/reset", key=OPS, body={})).status_code == 403


async def test_grants_count_for_the_next_token(relay: Relay) -> None:
    """A connection that is open keeps what its token granted; the next token has the new grants."""
    async with relay.connect() as socket:
        said = await reload(relay, ('trader.prices = ["prices.>"]', 'trader.prices = ["prices.A"]'))
        assert said["changed"] == ["grants.trader.prices"]
        await socket.read("error")  # nothing subscribed: the token has a pattern
        await socket.send(type="subscribe", channels=["prices.B"])
        await socket.read("subscribed")
    answer = (await relay.ask_as({"channels": ["prices.A", "prices.B"]})).json()
    assert answer["channels"] == ["prices.A"]


async def test_origins_count_for_the_next_request(relay: Relay) -> None:
    """Of sockets, of tokens, and of pages that may send requests."""
    origin = "https://new.example.com"
    headers = {"Cookie": f"access-token={relay.session()}", "Origin": origin}
    async with http_client() as client:
        url = f"{relay.url}/auth/ws-token"
        assert (await client.post(url, headers=headers)).status_code == 403
        said = await reload(
            relay,
            (
                "[public]\n",
                f'[public]\nallowed_origins = ["{origin}"]\n',
            ),
        )
        assert said["changed"] == ["public.allowed_origins"]
        token = (await client.post(url, headers=headers)).json()["wsToken"]
    async with relay.connect(token, origin=origin):
        pass
    assert (await relay.ask()).status_code == 200  # public.url needs no place in the list


async def test_a_limit_counts_anew_only_where_it_changed(relay: Relay) -> None:
    """The rate of sessions changes and counts from zero; then another limit changes, and its counts stay."""
    session = relay.session()
    rate = 'tokens_per_session = "10000/minute"'
    await reload(relay, (rate, 'tokens_per_session = "1/hour"'))
    assert (await relay.ask(session)).status_code == 200
    assert (await relay.ask(session)).status_code == 429
    other = 'logins_per_address = "10000/minute"'
    said = await reload(
        relay,
        (other, 'logins_per_address = "9/minute"'),
        ("[public]\n", "[channels]\nidle_s = 7\n[public]\n"),
    )
    assert said["changed"] == ["channels.idle_s", "limits.logins_per_address"]
    assert (await relay.ask(session)).status_code == 429
    await reload(relay, ('tokens_per_session = "1/hour"', 'tokens_per_session = "2/hour"'))
    assert (await relay.ask(session)).status_code == 200


async def test_limits_of_connections_count_for_the_next_one(relay: Relay) -> None:
    """The open connection stays; the next one of the session finds no place."""
    session = relay.session()
    async with relay.connect(await relay.token(session)) as socket:
        await reload(relay, ("[limits]\n", '[limits]\nconnections_per_session = 1\nover = "refuse"\n'))
        async with relay.connect(await relay.token(relay.session())):
            pass
        with pytest.raises(Exception, match="4503"):
            async with relay.connect(await relay.token(session)):
                pass
        await socket.read("error")  # nothing subscribed: the token has a pattern
        await socket.send(type="subscribe", channels=["prices.B"])
        await socket.read("subscribed")


@pytest.mark.parametrize(
    ("error", "named"),
    [
        ("/etc/relay.toml: limits.conections: unknown key", ["limits.conections"]),
        ("RELAY_LIMITS__CHANNELS: limits.channels: must be", ["RELAY_LIMITS__CHANNELS", "limits.channels"]),
        ("The secret in session.signed has 43 bytes.\nset listen.tls.", ["session.signed", "listen.tls"]),
        ("audit.path: audit.jsonl is not a regular file; see log.txt", ["audit.path"]),
        ("public.url: https://audit.path.example is no URL, nor x@limits.channels", ["public.url"]),
        ("operators.ops.may: must not be empty", ["operators.ops.may"]),
        ("it is not TOML", []),
    ],
)
def test_an_error_tells_its_settings_and_no_values(error: str, named: list[str]) -> None:
    """What looks like a name and is a part of a value, such as a file or a host, is left out."""
    assert named_settings(error) == named


def test_each_limit_is_given_to_its_part() -> None:
    """A new limit must be added to `Reloader._update_parts`, or SIGHUP would only say that it changed."""
    assert set(Limits.model_fields) == {
        *Rates.__dataclass_fields__,
        *(
            "connections_per_session",
            "over",
            "unauthenticated_per_address",
            "connections",
            "drain_s",
            "handover_s",
        ),
        *(
            "denials_recorded",
            "subscriptions_recorded",
            "publications_recorded",
            "sent_recorded",
            "channels",
            "compression_cpu",
        ),
    }


async def test_routes_of_the_proxy_are_read_again(tmp_path: Path) -> None:
    """A new route is open at once, a removed one closed; what else changes of `bff` makes them wait for the restart."""
    backend = ProxiedBackend()
    routes = 'connections = 7\n[bff.proxy.routes."/users"]'
    with running(tmp_path, bff=f'backend = "{backend.origin}"\n[bff.proxy]\n{routes}') as relay:
        async with backend.answering(ok(b'{"ssn":1,"a":2}')):
            assert (await call(relay, "/users")).body == b'{"ssn":1,"a":2}'
            assert (await call(relay, "/orders")).status == 404
            said = await reload(
                relay,
                ("connections = 7", "connections = 8\ncalls_per_session = 5"),
                ('[bff.proxy.routes."/users"]', '[bff.proxy.routes."/orders"]\nstrip = ["ssn"]'),
            )
            assert said["changed"] == [
                "bff.proxy.calls_per_session",
                "bff.proxy.routes./orders",
                "bff.proxy.routes./users",
            ]
            assert said["needs_restart"] == ["bff.proxy.connections"]
            assert (await call(relay, "/users")).status == 404
            assert (await call(relay, "/orders")).body == b'{"a":2}'
            said = await reload(
                relay, ('"/orders"]', '"/users"]'), ("[bff.proxy]", 'me_path = "/users/me"\n[bff.proxy]')
            )
            assert said["changed"] == []
            assert (await call(relay, "/users")).status == 404


async def test_the_rest_needs_a_restart_and_is_named(relay: Relay) -> None:
    """A new endpoint waits with its grants; a port and a session key wait too. The next reload names them again."""
    said = await reload(
        relay,
        (
            "[grants]\n",
            '[endpoints.news]\npath = "/ws/news"\nchannels = ["news.>"]\n[grants]\nguest.news = ["news.>"]\n',
        ),
        (f'http = "127.0.0.1:{relay.ports[0]}"', 'http = "127.0.0.1:1"'),
        ("[bff]\n", "[bff]\nrefresh_max_age_s = 100\n"),
        ('guest.prices = ["prices.BTC-USD"]', 'guest.prices = ["prices.>"]'),
    )
    waits = ["bff.refresh_max_age_s", "endpoints.news", "grants.guest.news", "listen.http"]
    assert (said["changed"], said["needs_restart"]) == (["grants.guest.prices"], waits)
    again = await reload(relay)
    assert (again["changed"], again["needs_restart"]) == ([], waits)
    record = await relay.audited("reload.succeeded")
    assert record["event"]["outcome"] == "success"
    assert [record["relay"][name] for name in ("changed", "needs_restart", "count")] == [
        said["changed"],
        waits,
        1,
    ]
    assert "prices.>" not in str(record)
    assert (await relay.ask_as({"channels": ["prices.X"]}, roles=["guest"])).status_code == 200
    assert (await relay.ask_as({"endpoint": "news"}, roles=["guest"])).status_code == 400


@pytest.mark.parametrize(
    ("old", "new", "why", "named"),
    [
        ("[grants]", "[grants", "is not TOML", []),
        (
            OLD,
            'secret_sha256 = ["XYZ"]',
            "publishers.pricing.secret_sha256.0: must be 64 hex digits",
            ["publishers.pricing.secret_sha256.0"],
        ),
        (
            "[limits]",
            "[limits]\nconections = 1",
            "limits.conections: unknown key",
            ["limits.conections"],
        ),
        ("[public]", '[tokens]\nkeys_dir = "no-keys"\n[public]', "no-keys", ["tokens.keys_dir"]),
        (
            'algorithm = "HS256", secret = "test',
            'algorithm = "HS512", secret = "test',
            "session.signed",
            ["session.signed.secret"],
        ),
    ],
)
async def test_a_bad_file_changes_nothing(
    shared: Relay, old: str, new: str, why: str, named: list[str]
) -> None:
    """One log line says why, and a record names the settings without their values. The next good file counts."""
    relay, restored, before = shared, (new, old), len(failures(shared))
    right = (relay.folder / "relay.toml").read_text()
    said = await reload(relay, (old, new), ('may = ["revoke"]', 'may = ["read"]'))
    assert why in said["reason"]
    assert said["level"] == "error"
    assert "\n" not in said["reason"]
    assert (await operate(relay, "POST", "/v1/channels/reset", key=OPS, body={})).status_code == 400
    assert (await relay.publish_raw(b"{}", key=PUBLISHER_KEY)).status_code == 400
    await until(lambda: len(failures(relay)) > before)
    record = failures(relay)[-1]
    assert record["event"]["outcome"] == "failure"
    assert record["relay"]["settings"] == named
    assert record["relay"]["detail"] == "Nothing was changed. The process log says why."
    assert "XYZ" not in str(record)
    said = await reload(relay, restored)
    assert said["changed"] == ["operators.revoker.may"]
    (relay.folder / "relay.toml").write_text(right)
    await reload(relay)


def failures(relay: Relay) -> list[dict[str, Any]]:
    """Return the records of files that could not be used."""
    return [record for record in relay.audit() if record["event"]["action"] == "reload.failed"]
