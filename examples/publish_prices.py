"""Publish a hundred prices, as a backend does.

    python examples/publish_prices.py --url http://127.0.0.1:8002 --key NAME.SECRET

`relay demo` prints the address and a key. `publish` waits for the relay's answer: the value is then stored and given
to the fan-out. `send` does not wait; use it for thousands of values per second. `flush` waits for all of them and
raises the first refusal.
"""
# ruff: noqa: T201  # an example prints for its reader

import argparse
import asyncio
import os
import sys
import time

from relay.client import ClientError, ConfigurationError, Publisher, PublishError


async def main(url: str, key: str, channel: str, count: int) -> None:
    async with Publisher(url, key) as publisher:
        for number in range(count):
            # prices are texts, because floats would change decimals
            quote = {
                "symbol": channel.split(".")[-1],
                "bid": f"100.{number:02d}",
                "ask": f"100.{number + 5:02d}",
            }
            # the version grows, so that the relay drops an older value that arrives late or twice
            now_us = time.time_ns() // 1000
            await publisher.send(channel, quote, version=now_us, source_ts=now_us // 1000)
        await publisher.flush()
        receipt = await publisher.publish(channel, {"bid": "100.99", "ask": "101.04"})
        print(f"{count + 1} prices are published to {channel}, in epoch {receipt.epoch}")

        results = await publisher.publish_many(
            [(channel, {"bid": "101.00", "ask": "101.05"}), ("orders.1", {"not": "ours to publish"})]
        )
        for result in results:
            print("refused:" if isinstance(result, PublishError) else "published:", result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Publish a hundred prices.")
    parser.add_argument("--url", default="http://127.0.0.1:8002", help="the relay's internal address")
    parser.add_argument("--key", default=os.environ.get("RELAY_PUBLISH_KEY", ""), help="the publisher key")
    parser.add_argument("--channel", default="prices.EXAMPLE")
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    try:
        asyncio.run(main(options.url, options.key, options.channel, max(options.count, 1)))
    except (ClientError, ConfigurationError) as error:
        sys.exit(str(error))
