"""What the hub counts."""

from dataclasses import dataclass


@dataclass(slots=True)
class Counters:
    """What the hub has done since it was made. Deliveries are messages times subscribers."""

    publications: int = 0
    duplicates: int = 0
    deliveries: int = 0
    writes: int = 0
    bytes: int = 0
    conflated: int = 0
    overflows: int = 0
