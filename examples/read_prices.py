"""Log in, take scoped tokens, and read ten prices.

    python examples/read_prices.py --url http://127.0.0.1:8000

This works with `relay demo`. The program sends the session's access token to the issuer only. The price socket gets a
scoped token, valid for 30 seconds and one connection, and a new one for each attempt.
"""
# ruff: noqa: T201  # an example prints for its reader

import argparse
import asyncio
import sys

import httpx

from relay.client import ClientError, Closed, ScopedToken, Snapshot, Subscriber, Update, fetch_token


async def log_in(url: str, email: str, password: str) -> str:
    """Return the session's access token. The log-in sets it as a cookie that no browser script can read."""
    async with httpx.AsyncClient(trust_env=False) as client:
        response = await client.post(
            f"{url}/api/auth/login",
            json={"email": email, "password": password},
            headers={"X-Relay-CSRF": "1"},  # required from callers without an Origin (CSRF)
        )
        response.raise_for_status()
        return next(
            cookie.value or "" for cookie in client.cookies.jar if cookie.name.endswith("access-token")
        )


async def main(url: str, email: str, password: str, channels: list[str], count: int) -> None:
    session = await log_in(url, email, password)

    async def token() -> ScopedToken:
        return await fetch_token(url, session, channels=channels)

    endpoint = (await token()).endpoint  # the issuer tells the address of the stream
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
                    print(
                        f"disconnected ({event.reason}); the next attempt comes in {event.retry_in_s:.1f} s"
                    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Read ten prices.")
    parser.add_argument("--url", default="http://127.0.0.1:8000", help="the relay's public address")
    parser.add_argument("--email", default="demo@example.com")
    parser.add_argument("--password", default="demo")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("channels", nargs="*", default=["prices.>"])
    options = parser.parse_args()
    try:
        asyncio.run(main(options.url, options.email, options.password, options.channels, options.count))
    except httpx.HTTPError as error:
        sys.exit(f"The log-in at {options.url} failed: {error}")
    except ClientError as error:
        sys.exit(str(error))
