"""Tokens for other services: requested like any other token, and without channels."""

import time

import pytest

from relay.client import fetch_token
from tests.support.jws_forgery import claims_of
from tests.support.relay_process import REPORTS, Relay


async def test_the_answer_names_the_service(relay: Relay) -> None:
    """The endpoint is the service's URL, and there are no channels, granted or rejected."""
    answer = await relay.ask_as({"endpoint": "reports"})
    assert answer.status_code == 200
    assert answer.json() | {"wsToken": ""} == {
        "wsToken": "",
        "token_type": "N_A",
        "expires_in": 30,
        "endpoint": REPORTS,
        "channels": [],
        "rejected": [],
    }


async def test_the_token_is_for_that_url_and_to_call(relay: Relay) -> None:
    """Its scope differs from a socket's, it has no channels, and all other claims are as in every token."""
    claims, others = [
        claims_of((await relay.ask_as({"endpoint": endpoint}, sub="alice")).json()["wsToken"])
        for endpoint in ("reports", "prices")
    ]
    assert claims.keys() <= others.keys() - {"channels"}
    assert (claims["aud"], claims["scope"], claims["sub"]) == (REPORTS, "call", "alice")
    assert (claims["iss"], claims["origin"], claims["ver"]) == (relay.url, relay.url, 1)
    assert claims["exp"] == claims["iat"] + 30
    assert abs(claims["iat"] - time.time()) < 10


async def test_a_server_side_caller_gets_one_without_an_origin(relay: Relay) -> None:
    """A server-side caller may name a browser's origin; without one the token has none."""
    assert claims_of(await relay.token(endpoint="reports", origin=""))["origin"] == ""
    assert claims_of(await relay.token(endpoint="reports"))["origin"] == relay.url


async def test_the_python_client_gets_one(relay: Relay) -> None:
    """`fetch_token` takes the name of the service, and its result has the URL to call."""
    found = await fetch_token(relay.url, relay.session(), endpoint="reports")
    assert (found.endpoint, found.channels, found.rejected) == (REPORTS, (), ())


async def test_it_is_recorded_before_it_is_given_out(relay: Relay) -> None:
    """The audit log has the request and the claims, as for every token."""
    claims = claims_of((await relay.ask_as({"endpoint": "reports"}, sub="bob")).json()["wsToken"])
    record = await relay.recorded(lambda found: found["relay"].get("token", {}).get("jti") == claims["jti"])
    assert (record["event"]["action"], record["user"]["id"]) == ("token.issued", "bob")
    assert record["relay"]["asked"] == {"endpoint": "reports", "channels": []}
    token = record["relay"]["token"]
    assert (token["aud"], token["scope"], token["channels"]) == (REPORTS, "call", [])


@pytest.mark.parametrize("roles", [[], ["guest"], ["nobody"]])
async def test_a_role_without_a_grant_gets_no_service_token(relay: Relay, roles: list[str]) -> None:
    """A grant on another endpoint does not count."""
    answer = await relay.ask_as({"endpoint": "reports"}, sub="uncalled", roles=roles)
    assert (answer.status_code, answer.json()["code"]) == (403, "forbidden")
    record = await relay.audited("token.denied", reason="nothing_granted", user="uncalled")
    assert record["http"]["response"] == {"status_code": 403}


@pytest.mark.parametrize("channels", [["prices.>"], ["reports"], [], [1], "x"])
async def test_channels_of_a_service_are_400(relay: Relay, channels: object) -> None:
    """Channels in a request for a service are a mistake, so they are refused and not ignored."""
    answer = await relay.ask_as({"endpoint": "reports", "channels": channels})
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
    assert "has no channels" in answer.json()["message"]
