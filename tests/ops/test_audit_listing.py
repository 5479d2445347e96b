"""GET /v1/audit: the log's newest records for operators, and that looking is in the log."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.operators import OPERATORS, READER, by_command, operate
from tests.support.relay_process import Relay, running


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Relay]:
    """A relay with operators."""
    with running(tmp_path_factory.mktemp("watched"), extra=OPERATORS) as relay:
        yield relay


async def read(relay: Relay, query: str = "") -> list[dict[str, Any]]:
    """Return the records that a reader gets."""
    answer = await operate(relay, "GET", f"/v1/audit{query}", key=READER)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["records"]
    return found


async def test_a_token_s_story(watched: Relay) -> None:
    """Issued, used, closed, tried again: all of it by the token's id, and nothing of anybody else."""
    token = await watched.token(watched.session(sub="carol"))
    await watched.token(watched.session(sub="dave"))
    async with watched.connect(token) as socket:
        connection = socket.welcome["connection"]
    await watched.audited("connection.closed")
    with pytest.raises(Exception, match="401"):
        async with watched.connect(token):
            pass
    await watched.audited("connect.denied", reason="token_replayed")
    jti = (await read(watched, f"?about={connection}"))[0]["relay"]["token"]["jti"]
    story = [one["event"]["action"] for one in reversed(await read(watched, f"?about={jti}"))]
    assert story == ["token.issued", "connect.accepted", "connection.closed", "connect.denied"]
    assert {one["user"]["id"] for one in await read(watched, "?about=carol")} == {"carol"}


async def test_a_story_is_told_as_the_command_tells_it(watched: Relay) -> None:
    """By token, connection, session or user; each step in the words of `relay audit why`."""
    token = await watched.token(watched.session(sub="judy", sid="judy-1"))
    async with watched.connect(token, query="?channels=prices.A") as socket:
        connection = socket.welcome["connection"]
    record = await watched.recorded(
        lambda one: (
            one["event"]["action"] == "connection.closed" and one["relay"]["connection"]["id"] == connection
        ),
    )
    names = [connection, record["relay"]["token"]["jti"], record["relay"]["session"]["ref"], "judy"]
    stories = []
    for name in names:
        answer = await operate(watched, "GET", f"/v1/audit/why?about={name}", key=READER)
        assert answer.status_code == 200, answer.text
        assert answer.json()["whole"]
        stories.append(answer.json()["steps"])
        assert by_command(watched, name) == stories[-1]
    assert [step["action"] for step in stories[0]] == [
        "token.issued",
        "connect.accepted",
        "connection.closed",
    ]
    assert stories == [stories[0]] * 4
    assert "subscribed to prices.A" in stories[0][1]["sentence"]


@pytest.mark.parametrize("query", ["", "?about=", "?about=a&limit=1", "?about=" + "x" * 257])
async def test_a_story_of_nobody_in_particular(watched: Relay, query: str) -> None:
    """It has to be somebody's; the answer says what is wanted."""
    answer = await operate(watched, "GET", f"/v1/audit/why{query}")
    assert (answer.status_code, "?about=" in answer.json()["message"]) == (400, True)


async def test_each_record_comes_with_its_words(watched: Relay) -> None:
    """In the order of the records."""
    assert (await watched.ask(watched.session(sub="mallory", roles=["nobody"]))).status_code == 403
    await watched.audited("token.denied")
    answer = (await operate(watched, "GET", "/v1/audit?about=mallory", key=READER)).json()
    assert [one["event"]["action"] for one in answer["records"]] == ["token.denied"]
    why = "The caller's roles grant none of the requested channels. Roles: nobody."
    assert answer["told"] == [f"No token was given. {why}"]


async def test_reading_is_recorded_once_a_search(watched: Relay) -> None:
    """With who read and what for; a page that follows the log adds nothing to it."""
    for _ in range(5):
        await read(watched, "?about=erin&outcome=failure")
        await read(watched, "?about=erin&outcome=failure&after=1")
    await read(watched, "?about=frank")
    await watched.token()
    await watched.audited("token.issued")
    reads = [one for one in await read(watched, "?action=audit.read") if one["relay"]["sought"]]
    sought = [one["relay"]["sought"] for one in reads if "about" in one["relay"]["sought"]]
    assert sought.count({"about": "erin", "outcome": "failure"}) == 1
    assert sought.count({"about": "frank"}) == 1
    assert {one["relay"]["operator"]["id"] for one in reads} == {"reader"}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "action=no.such",
        "outcome=maybe",
        "after=-1",
        "before=%D9%A1",
        "about=" + "x" * 257,
        "user=1",
    ],
)
async def test_a_question_that_is_none(watched: Relay, query: str) -> None:
    """One sentence says what the parameter is."""
    answer = await operate(watched, "GET", f"/v1/audit?{query}")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid_request")
