"""Reading /metrics as a Prometheus server would: by the client library's own parser."""

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from tests.support.http_client import http_client
from tests.support.operators import READER
from tests.support.relay_process import Relay

OPENMETRICS = "application/openmetrics-text; version=1.0.0"

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def scrape(relay: Relay, accept: str = "") -> httpx.Response:
    """GET /metrics with an operator's key."""
    async with http_client() as client:
        headers = {"Authorization": f"Bearer {READER}"} | ({"Accept": accept} if accept else {})
        answer = await client.get(f"{relay.internal_url}/metrics", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer


def samples(text: str, *, openmetrics: bool = False) -> Samples:
    """Parse strictly; return values by name and labels."""
    parse = parse_openmetrics if openmetrics else parse_text
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
        for sample in family.samples
    }


def value(of: Samples, name: str, **labels: str) -> float:
    """Return the sum of a metric's samples that have these labels; 0 if there are none."""
    return sum(
        number for (one, have), number in of.items() if one == name and frozenset(labels.items()) <= have
    )
