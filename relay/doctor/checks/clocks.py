"""Checks of this machine's clock against the clocks of the servers that the relay works with.

A token lives 30 seconds, and the gate allows a difference of 2 seconds between clocks. A session's times come from the
backend's clock. An HTTP date has whole seconds, so a difference of less than about a second can't be seen.
"""

from collections.abc import Iterator

from relay.doctor.base import Check, Deployment, Severity

FAR_S = 1.0
"""Seconds by which a clock may be wrong: half of what the gate allows, because both clocks may be wrong."""


def _clock_off(deployment: Deployment) -> Iterator[str]:
    for clock in deployment.clocks:
        if clock.ahead_s is not None and abs(clock.ahead_s) > FAR_S:
            way = "ahead of" if clock.ahead_s > 0 else "behind"
            seconds = f"{abs(clock.ahead_s):.0f} s"
            yield f"this machine's clock is {seconds} {way} the clock of {clock.host} ({clock.setting})"


def _clock_unknown(deployment: Deployment) -> Iterator[str]:
    for clock in deployment.clocks:
        if clock.ahead_s is None:
            yield f"{clock.host} ({clock.setting}) did not tell its time"


CHECKS = (
    Check(
        name="clock-off",
        severity=Severity.ERROR,
        finds="The clock differs by more than a second from the clock of a server that the settings name.",
        means="Good tokens and sessions are refused as expired or not yet valid, and logs can't be compared.",
        do="Run an NTP client on both machines (chronyc tracking, timedatectl).",
        run=_clock_off,
    ),
    Check(
        name="clock-unknown",
        severity=Severity.NOTE,
        finds="A server that the settings name did not answer, or answered without a date.",
        means="The clocks could not be compared. If the server is down, log-ins or session checks fail as well.",
        do="Check that this machine can reach it.",
        run=_clock_unknown,
    ),
)
