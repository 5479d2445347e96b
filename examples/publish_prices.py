"""Publish a price a hundred times, as a backend does.

    python examples/publish_prices.py --url http://127.0.0.1:8002 --key NAME.SECRET

`relay demo` prints both. `publish` waits for the relay's answer: what it returned for was stored and handed to the
subscribers. `send` does not, and is for thousands a second; `flush` tells what became of them.
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
            # a version that grows: of two that cross on the way, or are sent again, the older one is dropped
            now_us = time.time_ns() // 1000
            await publisher.send(channel, quote, version=now_us, source_ts=now_us // 1000)
        await publisher.flush()
        receipt = await publisher.publish(channel, {"bid": "100.99", "ask": "101.04"})
        print(f"{count} prices and one are published to {channel}, in epoch {receipt.epoch}")

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
