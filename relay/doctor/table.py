"""The table of all checks."""

from typing import Final

from relay.doctor.base import Check, Deployment, Finding, Severity
from relay.doctor.checks import certificates, clocks, credentials, engine, limits, network, proxy, storage

_ORDER = tuple(Severity)

CHECKS: Final[tuple[Check, ...]] = tuple(
    sorted(
        (
            *network.CHECKS,
            *certificates.CHECKS,
            *credentials.CHECKS,
            *storage.CHECKS,
            *limits.CHECKS,
            *proxy.CHECKS,
            *clocks.CHECKS,
            *engine.CHECKS,
        ),
        key=lambda check: _ORDER.index(check.severity),
    )
)
"""Every check, the most severe first."""


def examine(deployment: Deployment) -> list[Finding]:
    """Run all checks and return their findings, the most severe first.

    Raises:
        ConfigurationError: if a key or a certificate can't be used. `relay config check` reports the same.
    """
    return [Finding(check=check, found=found) for check in CHECKS for found in check.run(deployment)]
