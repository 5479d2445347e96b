"""Publish a price a hundred times, as a backend does.

    python examples/publish_prices.py --url http://127.0.0.1:8002 --key NAME.SECRET

`relay demo` prints both. Every call waits for the relay's answer: what it returned for was stored and handed to
the subscribers.
"""
# ruff: noqa: T201  # an example talks to its reader

import argparse
import asyncio
import os
import time

from relay.client import Publisher, PublishError


async def main(url: str, key: str, channel: str, count: int) -> None:
    async with Publisher(url, key) as publisher:
        for number in range(count):
            # decimals travel as texts: no float ever touches a price
            quote = {
                "symbol": channel.split(".")[-1],
                "bid": f"100.{number:02d}",
                "ask": f"100.{number + 5:02d}",
            }
            position = await publisher.publish(channel, quote, source_ts=int(time.time() * 1000))
        print(f"{channel} is at seq {position.seq} of epoch {position.epoch}")

        results = await publisher.publish_many(
            [(channel, {"bid": "101.00", "ask": "101.05"}), ("orders.1", {"not": "ours to publish"})]
        )
        for result in results:
            print("refused:" if isinstance(result, PublishError) else "published:", result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Publish a price a hundred times.")
    parser.add_argument("--url", default="http://127.0.0.1:8002", help="the relay's internal address")
    parser.add_argument("--key", default=os.environ.get("RELAY_PUBLISH_KEY", ""), help="the publisher key")
    parser.add_argument("--channel", default="prices.EXAMPLE")
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    asyncio.run(main(options.url, options.key, options.channel, max(options.count, 1)))
