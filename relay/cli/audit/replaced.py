"""Files that an answer is written to: aside, for their owner alone, and with their name when all is on the disk."""

import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from relay.cli.output import printable
from relay.core.errors import ConfigurationError, RelayError


def check_target(path: Path, *, option: str, logs: Iterable[Path]) -> None:
    """Refuse to write over anything but a file, as a link to one of somebody else, and over the log itself.

    Raises:
        ConfigurationError: if something else is there.
    """
    with suppress(FileNotFoundError, NotADirectoryError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode):
            raise ConfigurationError(
                f"{option}: {printable(str(path))} is no regular file, and is not written over. Name another file."
            )
        if any(log.exists() and os.path.samestat(found, log.stat()) for log in logs):
            raise ConfigurationError(
                f"{option}: {printable(str(path))} is a file of the audit log, and is not written over. Name another "
                "file."
            )


@contextmanager
def replaced(path: Path, *, option: str, logs: Iterable[Path]) -> Iterator[Path]:
    """Yield the file to write. It has mode 0600, and gets the name `path` when it is on the disk.

    Raises:
        ConfigurationError: if something else than a file is there, or a file of the log.
        RelayError: if it can't be written.
    """
    check_target(path, option=option, logs=logs)
    aside = None
    try:
        with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}.", delete=False) as file:
            aside = Path(file.name)
        yield aside
        aside.chmod(0o600)
        with aside.open("rb+") as written:
            os.fsync(written.fileno())
        check_target(path, option=option, logs=logs)
        aside.replace(path)
    except OSError as error:
        raise RelayError(
            f"{option}: {printable(str(path))} can't be written: {error.strerror or error}."
        ) from None
    finally:
        if aside is not None:
            aside.unlink(missing_ok=True)  # it has its name by now, if all went well
