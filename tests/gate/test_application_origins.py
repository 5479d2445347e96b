"""Origins of applications and browser extensions: those that the settings name get tokens and open sockets."""

import asyncio
import json
from pathlib import Path

from tests.support.raw_http import bearing, exchange, head, knock, upgrade
from tests.support.relay_process import make_relay
from tests.support.shared_relay import assert_quiet

APPLICATIONS = (
    "capacitor://localhost",
    "ionic://localhost",
    "tauri://localhost",
    "http://tauri.localhost",
    "chrome-extension://abcdefghijklmnopabcdefghijklmnop",
    "moz-extension://0b6a1c9e-7e3b-4c55-9f0e-0123456789ab",
    "safari-web-extension://54DD84F4-2A17-4D3B-8C2E-0123456789AB",
    "app://desk.example",
)
FOREIGN = (
    "capacitor://localhost:1",
    "tauri://localhost.evil.example",
    "Tauri://localhost",
    "chrome-extension://bbcdefghijklmnopabcdefghijklmnop",
    "safari-web-extension://54dd84f4-2a17-4d3b-8c2e-0123456789ab",
    "null",
)


async def test_an_application_gets_a_token_and_opens_a_socket(tmp_path: Path) -> None:
    """Each named origin works byte for byte; another application, extension or spelling is refused at both places."""
    relay = make_relay(tmp_path)
    file = tmp_path / "relay.toml"
    named = json.dumps(APPLICATIONS)
    file.write_text(file.read_text().replace("[public]\n", f"[public]\nallowed_origins = {named}\n"))

    async def ask(origin: str) -> tuple[int, str]:
        fields = [("Host", "x"), ("Origin", origin), ("Authorization", f"Bearer {relay.session()}")]
        answer = await exchange(
            relay.ports[0], head("POST", "/auth/ws-token", [*fields, ("Content-Length", "0")])
        )
        return answer.status, answer.json.get("wsToken", "")

    relay.start()
    try:
        answers = await asyncio.gather(*(ask(origin) for origin in APPLICATIONS))
        assert [status for status, _ in answers] == [200] * len(APPLICATIONS)
        for origin, (_, token) in zip(APPLICATIONS, answers, strict=True):
            other = APPLICATIONS[APPLICATIONS.index(origin) - 1]
            for wrong in (other, *FOREIGN):
                refused = await knock(relay, fields=[*upgrade(relay, origin=wrong), bearing(token)])
                assert refused.status == 403, (origin, wrong)
            accepted = await knock(relay, fields=[*upgrade(relay, origin=origin), bearing(token)])
            assert accepted.status == 101, origin
        assert [(await ask(origin))[0] for origin in FOREIGN] == [403] * len(FOREIGN)
    finally:
        relay.stop()
    assert_quiet(relay)
