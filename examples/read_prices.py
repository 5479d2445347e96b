"""Log in, take scoped tokens, and read prices until ten values have come.

    python examples/read_prices.py --url http://127.0.0.1:8000

works against `relay demo`. The session's access token stays in this program and goes to the issuer alone; the
price socket gets a token that is good for 30 seconds and one connection, a new one for every attempt.
"""
# ruff: noqa: T201  # an example talks to its reader

import argparse
import asyncio

import httpx

from relay.client import Closed, ScopedToken, Snapshot, Subscriber, Update, fetch_token


async def log_in(url: str, email: str, password: str) -> str:
    """Return the session's access token, which the login puts into a cookie that no browser script can read."""
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(
            f"{url}/api/auth/login",
            json={"email": email, "password": password},
            headers={"X-Relay-CSRF": "1"},  # what a caller without an Origin proves itself with
        )
        response.raise_for_status()
        return next(
            cookie.value or "" for cookie in client.cookies.jar if cookie.name.endswith("access-token")
        )


async def main(url: str, email: str, password: str, channels: list[str], count: int) -> None:
    session = await log_in(url, email, password)

    async def token() -> ScopedToken:
        return await fetch_token(url, session, channels=channels)

    endpoint = (await token()).endpoint  # the issuer knows where the stream is
    async with Subscriber(endpoint, token) as prices:
        await prices.subscribe(channels)
        async for event in prices:
            match event:
                case Snapshot() | Update():
                    print(event.channel, event.seq, event.data)
                    count -= 1
                    if count <= 0:
                        return
                case Closed():
                    print(f"disconnected ({event.reason}); again in {event.retry_in_s:.1f} s")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Read ten prices.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the relay's public address")
    parser.add_argument("--email", default="demo@example.com")
    parser.add_argument("--password", default="demo")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("channels", nargs="*", default=["prices.>"])
    options = parser.parse_args()
    asyncio.run(main(options.url, options.email, options.password, options.channels, options.count))
