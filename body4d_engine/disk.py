# SPDX-License-Identifier: Apache-2.0
"""Durable writes and a lock between processes. Standard library only."""

import errno
import hashlib
import os
import time
from contextlib import contextmanager
from pathlib import Path

from .errors import TakeError

if os.name == "nt":
    import msvcrt
else:
    import fcntl

HASHED_BYTES = 64 << 20  # files up to this size are checked by content, larger ones by size


class FileLock:
    """A lock on a file that the operating system frees when its owner dies."""

    def __init__(self, path: Path):
        self.path = path
        self._file = None

    def acquire(self) -> bool:
        """Take the lock; False where another process has it."""
        file = open(self.path, "a+b")
        try:
            if os.name == "nt":
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.close()
            return False
        self._file = file
        return True

    def release(self) -> None:
        if self._file:
            self._file.close()
            self._file = None


def fingerprint(path: Path) -> dict:
    """Size and, up to HASHED_BYTES, sha256 of a file."""
    size = path.stat().st_size
    return {"bytes": size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest() if size <= HASHED_BYTES else None}


def replace(source: Path, target: Path) -> None:
    """Rename over the target, atomically."""
    for attempt in range(20):  # Windows: a reader may have the target open for a moment
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if attempt == 19:
                raise
            time.sleep(0.05)


def sync_folder(path: Path) -> None:
    """Make renames inside the folder permanent, where the system has a call for that."""
    if os.name == "posix":
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def writing(path: Path):
    """Turns the operating system's errors while `path` is written into words about the take. Raises TakeError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise TakeError(f"The disk is full: {path} could not be written.",
                            "Free some space and run again: it goes on where it stopped, nothing is lost.", "disk_full") from error
        raise TakeError(f"{path} could not be written: {error.strerror or error}.",
                        "Check that the folder still exists and that you may write there, then run again.", "take_not_writable") from error
