"""The table of all checks, and what they find in a deployment."""

from typing import Final

from relay.doctor.base import Check, Deployment, Finding, Severity
from relay.doctor.checks import bounds, certificates, clocks, exposure, keeping, secrecy

_ORDER = tuple(Severity)

CHECKS: Final[tuple[Check, ...]] = tuple(
    sorted(
        (
            *exposure.CHECKS,
            *certificates.CHECKS,
            *secrecy.CHECKS,
            *keeping.CHECKS,
            *bounds.CHECKS,
            *clocks.CHECKS,
        ),
        key=lambda check: _ORDER.index(check.severity),
    )
)
"""Every check, the severe ones first."""


def examine(deployment: Deployment) -> list[Finding]:
    """Run all checks and return what they found, the severe first.

    Raises:
        ConfigurationError: if a key or a certificate can't be used; `relay config check` says the same.
    """
    return [Finding(check=check, found=found) for check in CHECKS for found in check.look(deployment)]
