"""The section [audit]: where the audit log is, which key signs it, and how long it is kept."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from relay.settings.sections import Section


class Audit(Section):
    """The audit log."""

    path: Path = Field(
        default=Path("audit.jsonl"), description="File of the audit log, one JSON object a line."
    )
    keys_dir: Path = Field(
        default=Path("audit-keys"),
        description="Folder of the key that signs the log's checkpoints; made at the first start. Not tokens.keys_dir.",
    )
    rotate_mb: int = Field(
        default=256,
        ge=0,
        le=1 << 20,
        description="Size in MB from which the log goes on in another file; 0: never.",
    )
    rotate_hours: int = Field(
        default=24,
        ge=0,
        le=8784,
        description="Age in hours from which the log goes on in another file; 0: never.",
    )
    keep_days: int = Field(
        default=0, ge=0, le=36600, description="Days after which whole older files are deleted; 0: never."
    )
    fsync: Literal["never", "checkpoint", "always"] = Field(
        default="checkpoint",
        description="When to wait for the disk, against a power cut: never, at checkpoints, or at every write.",
    )
    stdout: Literal["nothing", "checkpoints", "records"] = Field(
        default="nothing",
        description="What of the log is copied to standard output, where other lines then go to standard error.",
    )
