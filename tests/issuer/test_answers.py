"""POST /auth/ws-token: the answer, the token in it, and each error with its status, code and headers."""

import json
import time
from typing import Any

import jwt
import pytest

from tests.support.http_client import http_client
from tests.support.jws_forgery import claims_of, forge
from tests.support.raw_http import exchange, head, post
from tests.support.relay_process import SECRET, Relay


async def test_the_answer_has_its_documented_shape(relay: Relay) -> None:
    """The answer is 200 with exactly these members, as JSON that must not be cached or sniffed."""
    answer = await relay.ask_as({"endpoint": "prices", "channels": ["prices.BTC-USD"]})
    assert answer.status_code == 200
    body = answer.json()
    assert body | {"wsToken": ""} == {
        "wsToken": "",
        "token_type": "N_A",
        "expires_in": 30,
        "endpoint": f"{relay.stream_url}/ws/prices",
        "channels": ["prices.BTC-USD"],
        "rejected": [],
    }
    assert answer.headers["cache-control"] == "private, no-store"
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "set-cookie" not in answer.headers


async def test_the_token_has_its_documented_claims(relay: Relay) -> None:
    """Header and claims are exactly the documented ones, with whole seconds."""
    now = int(time.time())
    token = (await relay.ask_as(sub="alice", sid="secret-session-id")).json()["wsToken"]
    assert {name: value for name, value in jwt.get_unverified_header(token).items() if name != "kid"} == {
        "typ": "scoped+jwt",
        "alg": "EdDSA",
    }
    claims = claims_of(token)
    assert set(claims) == {
        "iss", "aud", "sub", "iat", "nbf", "exp", "jti", "scope", "channels", "sid", "origin", "ver", "asker",
        "session_iat",
    }  # fmt: skip
    assert (claims["iss"], claims["aud"]) == (relay.url, f"{relay.stream_url}/ws/prices")
    assert (claims["sub"], claims["scope"], claims["ver"]) == ("alice", "subscribe", 1)
    assert (claims["channels"], claims["origin"]) == (["prices.>"], relay.url)
    assert now <= claims["iat"] <= now + 10
    assert (claims["nbf"], claims["exp"]) == (claims["iat"], claims["iat"] + 30)
    assert len(claims["jti"]) == 22
    assert "secret-session-id" not in json.dumps(claims)


async def test_two_tokens_have_nothing_in_common_but_the_session(relay: Relay) -> None:
    """Each has its own jti; tokens of one session have the same session reference, and others have another."""
    session = relay.session()
    first, second, other = [
        claims_of((await relay.ask(text)).json()["wsToken"]) for text in (session, session, None)
    ]
    assert first["jti"] != second["jti"]
    assert first["sid"] == second["sid"] != other["sid"]


async def test_nothing_asked_is_everything_granted(relay: Relay) -> None:
    """No body, an empty object and nulls give the default endpoint with all that the roles grant there."""
    for body in (None, {}, {"channels": None}, {"endpoint": "prices"}):
        answer = (await relay.ask_as(body)).json()
        assert (answer["endpoint"], answer["channels"]) == (f"{relay.stream_url}/ws/prices", ["prices.>"])


async def test_another_endpoint_is_another_token(relay: Relay) -> None:
    """The audience is the endpoint that was asked for, with the channels that are granted there."""
    answer = (await relay.ask_as({"endpoint": "depth"})).json()
    assert answer["endpoint"] == claims_of(answer["wsToken"])["aud"] == f"{relay.stream_url}/ws/depth"
    assert answer["channels"] == ["depth.>"]


async def test_what_is_not_granted_is_named(relay: Relay) -> None:
    """The token has only the granted channels, and the answer names the rejected ones."""
    asked = ["prices.BTC-USD", "prices.ETH-USD", "prices.>", "orders.1", "prices.BTC-USD"]
    answer = (await relay.ask_as({"channels": asked}, roles=["guest"])).json()
    assert answer["channels"] == claims_of(answer["wsToken"])["channels"] == ["prices.BTC-USD"]
    assert answer["rejected"] == [
        {"channel": channel, "code": "forbidden"} for channel in ("prices.ETH-USD", "prices.>", "orders.1")
    ]


@pytest.mark.parametrize(
    ("role", "asked", "granted"),
    [
        ("guest", ["prices.>"], ["prices.BTC-USD"]),
        ("guest", [">", "*.BTC-USD", "prices.*"], ["prices.BTC-USD"]),
        ("trader", [">"], ["prices.>"]),
        ("trader", ["*.*", "orders.>"], ["prices.*"]),
    ],
)
async def test_a_request_that_is_wider_than_the_grant_is_cut_to_it(
    relay: Relay, role: str, asked: list[str], granted: list[str]
) -> None:
    """What the request and the grant have in common is granted, and the answer and the record name what was cut."""
    answer = (await relay.ask_as({"channels": asked}, roles=[role], sub=f"wide-{role}-{len(asked)}")).json()
    assert answer["channels"] == claims_of(answer["wsToken"])["channels"] == granted
    assert answer["rejected"] == [{"channel": channel, "code": "forbidden"} for channel in asked]
    record = await relay.recorded(lambda one: one.get("user", {}).get("id") == f"wide-{role}-{len(asked)}")
    assert record["relay"]["rejected"] == [{"channel": name, "reason": "channel_forbidden"} for name in asked]


async def test_the_snippet_of_the_readme_works_for_a_guest(relay: Relay) -> None:
    """A page that asks for `prices.>` gets its user's price, whose role grants only that."""
    await relay.publish("prices.BTC-USD", "the guest's price")
    token = (await relay.ask_as({"endpoint": "prices", "channels": ["prices.>"]}, roles=["guest"])).json()
    async with relay.connect(token["wsToken"], query="?channels=prices.BTC-USD") as socket:
        await socket.read("subscribed")
        assert (await socket.read("snapshot"))["data"] == "the guest's price"


async def test_roles_add_up(relay: Relay) -> None:
    """Roles may be a text or a list, and an unknown role grants nothing."""
    for roles in ("trader", ["guest", "trader"], ["nobody", "trader"]):
        answer = await relay.ask_as({"channels": ["prices.ETH-USD"]}, roles=roles)
        assert answer.status_code == 200, roles


async def test_the_log_says_which_role_granted_what(relay: Relay) -> None:
    """The record of a session with several roles names the roles that grant each channel."""
    asked = {"channels": ["prices.ETH-USD", "prices.BTC-USD"]}
    assert (
        await relay.ask_as(asked, sub="of-two-roles", roles=["guest", "trader", "nobody"])
    ).status_code == 200
    record = await relay.recorded(lambda one: one.get("user", {}).get("id") == "of-two-roles")
    assert record["relay"]["granted"] == [
        {"channel": "prices.ETH-USD", "roles": ["trader"]},
        {"channel": "prices.BTC-USD", "roles": ["guest", "trader"]},
    ]


@pytest.mark.parametrize("roles", [[], ["nobody"], ["trader.prices"], ["Trader"]])
async def test_nothing_granted_is_403(relay: Relay, roles: list[str]) -> None:
    """A session without a grant gets no token, and the record has the reason nothing_granted."""
    answer = await relay.ask_as(sub="roleless", roles=roles)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    await relay.audited("token.denied", reason="nothing_granted", user="roleless")


async def test_channels_outside_the_grant_are_403(relay: Relay) -> None:
    """A request for channels outside the grants is refused like one without a grant."""
    answer = await relay.ask_as(
        {"channels": ["depth.BTC-USD", "depth.>", "*.BTC-USD.X.Y", "Prices.>"]}, roles=["guest"]
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"endpoint": "nowhere"}, "invalid_request"),
        ({"endpoint": ""}, "invalid_request"),
        ({"endpoint": 1}, "invalid_request"),
        ({"endpoint": None}, "invalid_request"),
        ({"endpoint": "../prices"}, "invalid_request"),
        ({"channels": []}, "invalid_request"),
        ({"channels": "prices.>"}, "invalid_request"),
        ({"channels": {}}, "invalid_request"),
        ({"channels": [1]}, "invalid_request"),
        ({"channels": [None]}, "invalid_request"),
        ({"channels": [["prices.>"]]}, "invalid_request"),
        ({"channels": [""]}, "invalid_request"),
        ({"channels": ["prices..x"]}, "invalid_request"),
        ({"channels": ["prices.>.x"]}, "invalid_request"),
        ({"channels": ["prices.\u2028"]}, "invalid_request"),
        ({"channels": ["prices.\uff22\uff34\uff23"]}, "invalid_request"),
        ({"channels": ["p" * 65]}, "invalid_request"),
        ({"channels": ["prices.a\n"]}, "invalid_request"),
        ({"channels": [f"prices.A{index}" for index in range(33)]}, "too_many_channels"),
        ({"origin": "https://evil.example"}, "invalid_request"),
        ({"scope": "publish"}, "invalid_request"),
        ({"ttl_s": 3600}, "invalid_request"),
        ([], "invalid_request"),
        ("prices", "invalid_request"),
    ],
)
async def test_a_malformed_request_is_400(relay: Relay, body: Any, code: str) -> None:
    """Each mistake has one sentence that says what is wrong, and is not retryable."""
    answer = await relay.ask_as(body)
    error = answer.json()
    assert (answer.status_code, error["code"], error["retryable"]) == (400, code, False)
    assert set(error) == {"code", "message", "retryable"}
    assert 10 < len(error["message"]) < 300
    assert answer.headers["cache-control"] == "private, no-store"


async def test_32_channels_are_not_too_many(relay: Relay) -> None:
    """The longest request that is allowed gets a token that the gate accepts."""
    asked = [f"prices.{'A' * 50}{index}" for index in range(32)]
    answer = await relay.ask_as({"channels": asked})
    assert answer.status_code == 200
    async with relay.connect(answer.json()["wsToken"]) as socket:
        assert len((await socket.read("subscribed"))["channels"]) == 32


async def test_a_body_above_8_kb_is_400(relay: Relay) -> None:
    """A body over the limit is refused before it is parsed, with Content-Length or in chunks."""
    fields = [
        ("Host", "x"),
        ("Cookie", f"access-token={relay.session()}"),
        ("Origin", relay.url),
        ("Content-Type", "application/json"),
    ]
    large = b'{"endpoint":"' + b"p" * 9000 + b'"}'
    announced = head("POST", "/auth/ws-token", [*fields, ("Content-Length", "100000000")]) + large
    chunked = head("POST", "/auth/ws-token", [*fields, ("Transfer-Encoding", "chunked")])
    chunked += b"%x\r\n%b\r\n" % (len(large), large)  # and no end
    for data in (announced, chunked):
        answer = await exchange(relay.ports[0], data)
        assert (answer.status, answer.code) == (400, "invalid_request")


async def test_an_unknown_session_is_401(relay: Relay) -> None:
    """A missing session and every invalid one get the same body, with the code invalid_session."""
    now = int(time.time())
    claims = {"sub": "x", "roles": ["trader"], "token_use": "access", "iat": now, "exp": now + 60}
    assert (await relay.ask(forge({"alg": "HS256"}, claims, SECRET.encode()))).status_code == 200
    wrong = [
        "garbage",
        relay.session(token_use="refresh"),
        relay.session(token_use=True),
        relay.session(exp=now - 60),
        relay.session(iat=now + 600),
        relay.session(exp="soon"),
        relay.session(sub=""),
        relay.session(sub=5.5),
        relay.session(sid=""),
        relay.session(roles=5),
        forge({"alg": "HS384"}, claims, SECRET.encode()),
        forge({"alg": "HS256"}, claims, b"another secret"),
        forge({"alg": "HS256"}, claims, b""),
        forge({"alg": "none"}, claims, None),
        forge({"alg": "HS256", "crit": ["x"], "x": 1}, claims, SECRET.encode()),
        forge({"alg": "HS256", "typ": "scoped+jwt"}, claims, SECRET.encode()),
        await relay.token(),
    ]
    answers = [await relay.ask(session) for session in wrong]
    assert {answer.status_code for answer in answers} == {401}
    assert {answer.text for answer in answers} == {
        '{"code":"invalid_session","message":"There is no valid session. Log in again.","retryable":false}'
    }
    missing = await post(relay, "/auth/ws-token", [("Origin", relay.url)])
    assert (missing.status, missing.body.decode()) == (401, answers[0].text)


async def test_both_addresses_of_the_route_are_one(relay: Relay) -> None:
    """/api/auth/ws-token, with the BFF's prefix, answers like /auth/ws-token."""
    fields = [("Cookie", f"access-token={relay.session()}"), ("Origin", relay.url)]
    answer = await post(relay, "/api/auth/ws-token", fields)
    assert (answer.status, answer.json["endpoint"]) == (200, f"{relay.stream_url}/ws/prices")


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "POST /x"])
async def test_only_post_is_answered(relay: Relay, method: str) -> None:
    """Other methods are 405 in the form of all errors, and an unknown path is 404."""
    verb, _, path = method.partition(" ")
    answer = await exchange(relay.ports[0], head(verb, path or "/auth/ws-token", [("Host", "x")]))
    assert answer.status == (404 if path else 405)


async def test_the_log_has_what_was_asked_and_what_was_granted(relay: Relay) -> None:
    """token.issued names the user, the request and the token's claims, and never the token."""
    asked = {"channels": ["prices.BTC-USD", "orders.1"]}
    token = (await relay.ask_as(asked, sub="logged")).json()["wsToken"]
    claims = claims_of(token)
    record = next(
        record
        for record in reversed(relay.audit())
        if record["event"]["action"] == "token.issued" and record["user"]["id"] == "logged"
    )
    assert record["relay"]["asked"] == {"endpoint": "prices", **asked}
    assert record["relay"]["rejected"] == [{"channel": "orders.1", "reason": "channel_forbidden"}]
    assert record["relay"]["session"]["roles"] == ["trader"]
    logged = record["relay"]["token"]
    assert {name: logged[name] for name in ("jti", "aud", "scope", "channels", "iat", "exp")} == {
        name: claims[name] for name in ("jti", "aud", "scope", "channels", "iat", "exp")
    }
    assert record["relay"]["session"]["ref"] == claims["sid"]
    assert token not in json.dumps(record)


async def test_the_public_keys_are_public(relay: Relay) -> None:
    """The JWKS has the signing key without private members, may be cached for a minute, and verifies a token."""
    async with http_client() as client:
        answer = await client.get(f"{relay.url}/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=60"
    [key] = answer.json()["keys"]
    assert set(key) == {"kty", "crv", "x", "kid", "alg", "use"}
    token = await relay.token()
    assert jwt.get_unverified_header(token)["kid"] == key["kid"]
    audience = f"{relay.stream_url}/ws/prices"
    assert jwt.decode(token, jwt.PyJWK(key).key, algorithms=["EdDSA"], audience=audience)["sub"] == "user-1"
