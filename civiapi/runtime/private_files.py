"""Files that only their owner may read: databases, settings, exports and logs hold addresses and keys."""

import os
from contextlib import suppress
from pathlib import Path
from typing import TextIO

MODE = 0o600
OTHERS = 0o077


def create_private(path: Path) -> None:
    """Make an empty file at *path*, with mode 600 whatever the umask, unless there is one. Raises ``OSError``."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, MODE))


def open_private(path: Path) -> TextIO:
    """Open a text file for writing, emptied and readable by its owner only. Raises ``OSError``."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, MODE)
    os.fchmod(handle, MODE)  # it may have been there with another
    return os.fdopen(handle, "w", encoding="utf-8", newline="")


def restrict_new_files() -> None:
    """Have every file that this process makes from now on be readable by its owner only."""
    os.umask(OTHERS)


def others_may_read(path: Path) -> bool:
    """Whether group or others have any access to *path*; False where there is no such file."""
    try:
        return bool(path.stat().st_mode & OTHERS)
    except OSError:
        return False
