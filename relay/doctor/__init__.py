"""The checks of `relay doctor`: parts of a deployment that are allowed but unwise, and what to do about them.

`relay config check` tells whether the relay can run with its settings. `relay doctor` tells whether it should.

    checks/    the checks, one file a subject: a function and its entry (name, severity, texts) for each check
    table.py   the table of all checks, which the documentation is made from
    probes.py  facts about this machine and other servers, gathered before the checks run
    base.py    the types: `Deployment` in, `Finding` out
"""

from relay.doctor.base import Check, Deployment, Finding, Severity
from relay.doctor.probes import gather
from relay.doctor.table import CHECKS, examine

__all__ = ["CHECKS", "Check", "Deployment", "Finding", "Severity", "examine", "gather"]
