# SPDX-License-Identifier: Apache-2.0
"""Durable writes, the lock between writers and the sweep of what no take names. Standard library only: the set-up scripts use it too."""

import errno
import hashlib
import json
import os
import re
import time
from contextlib import contextmanager, suppress
from pathlib import Path


from .errors import TakeError

if os.name == "nt":
    import msvcrt
else:
    import fcntl

HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
SWEPT = re.compile(r".+\.\w{12}\.(f32|f64|u8|u16|i32|i64|pc2|npz)(\.tmp)?|(camera|body\.\w+)\.npz(\.tmp)?|proxy\.mp4|\.proxy\.mp4\.part")
WINDOWS_FOLDER = 247  # characters of a folder's path (a file's: 259), unless the system was told to take longer ones
NAME = 64  # characters of the longest name in a take, with its folder: people/12/hand_rotations.0123456789ab.f32.tmp and some more
HASHED_BYTES = 64 << 20  # files up to this size are checked by content, larger ones by size


class FileLock:
    """A lock on a file that the operating system frees when its owner dies."""

    def __init__(self, path: Path):
        self.path = path
        self._file = None

    def acquire(self) -> bool:
        """Take the lock; False where another process has it. Raises OSError where the file cannot be opened or locked at all."""
        file = open(self.path, "a+b")
        try:
            if os.name == "nt":
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            else:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            if error.errno in HELD:
                return False
            raise
        self._file = file
        return True

    def release(self) -> None:
        if self._file:
            if os.name == "nt":  # which frees the locks of a closed file only some time later
                self._file.seek(0)
                msvcrt.locking(self._file.fileno(), msvcrt.LK_UNLCK, 1)
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
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks have none for folders
                raise
        finally:
            os.close(handle)


def write_json(target: Path, data: dict) -> None:
    """Replace a JSON file durably; the version before it stays as NAME.bak. Raises TakeError."""
    with writing(target):
        temporary = target.with_name(target.name + ".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            json.dump(data, file, ensure_ascii=False, separators=(",", ":"))
            file.flush()
            os.fsync(file.fileno())
        if target.exists():
            replace(target, target.with_name(target.name + ".bak"))
        replace(temporary, target)
        sync_folder(target.parent)


def write_whole(target: Path, fill) -> None:
    """Write a file atomically and durably; `fill` gets it open for binary writing. Raises TakeError."""
    with writing(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(target.name + ".tmp")
        with open(temporary, "wb") as file:
            fill(file)
            file.flush()
            os.fsync(file.fileno())
        replace(temporary, target)
        sync_folder(target.parent)


@contextmanager
def writing(path: Path):
    """Turns the operating system's errors while `path` is written into words about the take. Raises TakeError."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
            raise TakeError(f"The disk is full: {path} could not be written.",
                            "Free some space and run again: it goes on where it stopped, nothing is lost.", "disk_full") from error
        if is_too_long(error, path):
            raise TakeError(f"{path} is longer than this system lets paths be.", "Choose a folder with a shorter path for the take.",
                            "path_too_long") from error
        raise TakeError(f"{path} could not be written: {error.strerror or error}.",
                        "Check that the folder still exists and that you may write there, then run again.", "take_not_writable") from error


def is_too_long(error: OSError, path: Path, windows: bool = os.name == "nt") -> bool:
    """Whether that is why a file could not be made. Windows says that there is no such file or folder."""
    return error.errno == errno.ENAMETOOLONG or (windows and error.errno in (errno.ENOENT, errno.EINVAL) and len(os.path.abspath(path)) > WINDOWS_FOLDER)


def try_names(folder: Path) -> None:
    """Make sure, before there is anything to lose, that a take's files may be as long as their names get. Raises TakeError."""
    probe = folder / ("_" * NAME)
    with writing(probe):
        probe.touch()
        probe.unlink()


def acquire(path: Path) -> FileLock:
    """The lock of the one writer of a take. Raises TakeError where another has it."""
    lock = FileLock(path / "lock")
    with writing(lock.path):
        if not lock.acquire():
            raise TakeError(f"Another Body4D process is writing {path}.", "Wait until it has finished, or stop it.", "take_locked")
    return lock


def sweep(path: Path, meta: dict) -> None:
    """Delete the data files of a take that its take.json does not name. Those that somebody has open on Windows stay until the next time."""
    entries = [*meta["stages"].values(), *meta.get("earlier", {}).values(), *([meta["working"]] if meta["working"] else [])]
    named = {path / a["file"] for entry in entries for a in entry["arrays"].values()}
    named |= {path / known.get("file", name) for entry in entries for name, known in entry["files"].items()}
    folders = [*path.glob("people/*/"), *path.glob("tracklets/*/"), path / "people", path / "tracklets"]
    for file in [f for folder in (path, *folders) for f in folder.glob("*") if f not in named and SWEPT.fullmatch(f.name)]:
        with suppress(OSError):
            file.unlink()
    for folder in folders:
        with suppress(OSError):  # not empty
            folder.rmdir()
