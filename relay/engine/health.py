"""What a node may do while the engine is silent, or its clock is wrong.

Each rule is a sentence about how long the engine has not answered, so there is no state of its own here. `watch_engine`
of the server looks several times a second; the gate, the issuer and `/ready` ask when they need it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from relay.core.errors import Reason, UnavailableError
from relay.engine.clock_offset import ClockOffset
from relay.engine.eviction import Eviction, eviction_fault, eviction_warning
from relay.engine.pulse import GAP_S, Pulse, Pulses

STALE_AFTER_S = 2.0
"""Seconds without reading the log of publications after which this node's prices are called stale."""
ISSUE_FOR_S = 60.0
"""Seconds for which tokens are issued with the revocations in memory."""
WARN_OFFSET_S = 0.1
MOST_OFFSET_S = 1.0
"""A difference of the clocks at which claims are refused (`lua/claim.lua`)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """The health of the engine as one node sees it.

    `control` has the answers to the reader of revocations, `logs` those to the readers of publications, one for each
    shard, and `writes` the signs of life that it has stored. `evictions` has what the servers say of evicting keys. The
    settings are `engine.blind_s` and `engine.ready_after_s`.
    """

    control: Pulse
    writes: Pulse | Pulses
    logs: Sequence[Pulse]
    offset: ClockOffset
    blind_s: float
    ready_after_s: float
    evictions: Sequence[Eviction] = ()

    @property
    def gate_closed(self) -> Reason | None:
        """Why no connection is admitted, or None: this node may not know of a revocation."""
        return Reason.NODE_BLIND if self.control.silent_s > GAP_S else None

    @property
    def must_end_connections(self) -> bool:
        """Whether this node is blind for so long that open connections have to end."""
        return 0 < self.blind_s < self.control.silent_s

    @property
    def silent_shards(self) -> set[int]:
        """The shards whose last values may be old on this node."""
        return {number for number, pulse in enumerate(self.logs) if pulse.silent_s > STALE_AFTER_S}

    def check_revocations(self) -> None:
        """Check that what this node knows of revocations is fresh enough to make tokens.

        Raises:
            UnavailableError: if it is older than a minute.
        """
        silent_s = self.control.silent_s
        if silent_s > ISSUE_FOR_S:
            raise UnavailableError(
                Reason.NODE_BLIND,
                f"The engine did not answer for {silent_s:.0f} s, so revocations may be missing here.",
                setting="engine.url",
            )

    @property
    def issuer_unready(self) -> str | None:
        """Why sessions should be asked about elsewhere, or None. Tokens are issued for a minute without the engine."""
        return self._silent(self.control) if self.control.silent_s > ISSUE_FOR_S else None

    @property
    def stream_unready(self) -> str | None:
        """Why connections should be made elsewhere, or None."""
        if abs(self.offset.seconds) > MOST_OFFSET_S:
            return f"The clock of this machine is {-self.offset.seconds:+.1f} s off that of the engine."
        return (
            self._unready(self.control)
            or self._unready(Pulses(self.logs))
            or self._unready(self.writes)
            or eviction_fault(self.evictions)
        )

    @property
    def warning(self) -> str | None:
        """What somebody has to change at the engine although everything works, or None."""
        return eviction_warning(self.evictions)

    @property
    def ingest_unready(self) -> str | None:
        """Why publications should be sent elsewhere, or None."""
        # in a cluster other shards may have memory left
        return self._unready(Pulses(self.logs)) or (
            self._unready(self.writes) if len(self.logs) == 1 else None
        )

    def _unready(self, pulse: Pulse | Pulses) -> str | None:
        return None if pulse.is_reliable(after_s=self.ready_after_s) else self._silent(pulse)

    def _silent(self, pulse: Pulse | Pulses) -> str:
        if pulse.fault:
            return pulse.fault
        if pulse.silent_s > GAP_S:
            why = f" ({pulse.why.rstrip('.')})" if pulse.why else ""
            return f"The engine does not answer for {pulse.silent_s:.0f} s{why}."
        return "The engine has only just begun to answer again."
