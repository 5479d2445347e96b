"""This machine's clock, beside those of the servers that the relay works with.

A token lives 30 seconds and the gate allows 2 for clocks that differ; a session's times come from the backend's
clock. An HTTP date has whole seconds, so what is less than about one can't be seen from here.
"""

from collections.abc import Iterator

from relay.doctor.base import Check, Deployment, Severity

FAR_S = 1.0
"""Seconds by which a clock may be off: half of what the gate allows, as it may be off on both sides."""


def _clock_off(deployment: Deployment) -> Iterator[str]:
    for clock in deployment.clocks:
        if clock.ahead_s is not None and abs(clock.ahead_s) > FAR_S:
            way = "ahead of" if clock.ahead_s > 0 else "behind"
            yield f"this machine's clock is {abs(clock.ahead_s):.0f} s {way} that of {clock.host} ({clock.setting})"


def _clock_unknown(deployment: Deployment) -> Iterator[str]:
    for clock in deployment.clocks:
        if clock.ahead_s is None:
            yield f"{clock.host} ({clock.setting}) did not say what time it has"


CHECKS = (
    Check(
        name="clock-off",
        severity=Severity.ERROR,
        finds="The clock differs by more than a second from a server's that the settings name.",
        means="Good tokens and sessions are refused as expired or not valid yet, and logs can't be compared.",
        do="Run an NTP client on both machines (chronyc tracking, timedatectl).",
        look=_clock_off,
    ),
    Check(
        name="clock-unknown",
        severity=Severity.NOTE,
        finds="A server that the settings name did not answer, or without a date.",
        means="The clocks could not be compared; if it is down, nobody can log in or be checked either.",
        do="See whether it is reached from this machine.",
        look=_clock_unknown,
    ),
)
