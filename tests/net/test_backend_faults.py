"""The warning about an answer that can't be used: once a minute for each kind, whatever numbers it has."""

from typing import Any

import pytest
import structlog

from relay.core.errors import Reason
from relay.net.backend_faults import backend_fault


@pytest.mark.parametrize(
    "came",
    [
        "200, text/html, {} bytes",
        "tokens of {} and 20 bytes",
        "an access token that is refused here: the key kid-{}a is unknown",
        "a session from {}: 1 s too late",
    ],
)
def test_numbers_make_no_other_fault(came: str) -> None:
    """A backend whose answers differ in their length must not fill the log; another status is another fault."""
    with structlog.testing.capture_logs() as lines:
        errors = [backend_fault(came, came=came.format(n), expected="x", setting="y") for n in range(100)]
        backend_fault(came, came=f"404, {came.format(1)}", expected="x", setting="y")
    assert [line["came"] for line in found(lines)] == [came.format(0), f"404, {came.format(1)}"]
    assert {error.reason for error in errors} == {Reason.BACKEND_FAULT}


def found(lines: Any) -> Any:
    """Return the warnings."""
    return [line for line in lines if line["log_level"] == "warning"]
