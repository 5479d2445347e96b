"""What is legal in a deployment but unwise, and what to do about it: the checks behind `relay doctor`.

`relay config check` says whether the relay can run with these settings; this says whether it should. One check is one
small function, and one entry of a table with its name, its severity and its words, so that the documentation can be
made from the same table. The functions look at a `Deployment` and at files; who is asked over the network, and what
this machine is like, is found out before, by `probes`.
"""

from relay.doctor.base import Check, Deployment, Finding, Severity
from relay.doctor.probes import gather
from relay.doctor.table import CHECKS, examine

__all__ = ["CHECKS", "Check", "Deployment", "Finding", "Severity", "examine", "gather"]
