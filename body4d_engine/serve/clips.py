# SPDX-License-Identifier: Apache-2.0
"""The clips that the engine has: copies that came over the pipe, and files of a client on the same machine, used in place."""

import os
import re
import shutil
import uuid
from collections import Counter
from contextlib import contextmanager, suppress
from pathlib import Path

from ..clip_files import SUFFIXES, ClipHash, clip_files, identify, image_files, stamp_of
from ..disk import FileLock, writing
from ..errors import Body4DError

LARGEST = 1 << 50  # bytes of a clip


class Clips:
    """Copies are clips/SHA256/NAME, a file or a folder of images; what is not complete has another name."""

    def __init__(self, folder: Path):
        self.folder = folder / "clips"
        self._incoming: Incoming | None = None
        self._in_place: dict[str, tuple[Path, list]] = {}  # sha256 -> where, and how the files were when they were read
        self._origin: dict[str, str] = {}  # sha256 -> where the client has it
        self._users: Counter = Counter()  # sha256 -> how many here use its copy
        self._locks: dict[str, FileLock] = {}

    def offer(self, name: str, files: list, sha256: str, path: str | None, stamp: str | None, check) -> tuple[bool, int]:
        """Whether the clip is here; if not, it may be sent, from that many bytes of the whole on: the rest has come already. Raises Body4DError."""
        folder, name, entries = self._folder(sha256), _clean(name), _entries(files)
        if path is not None:
            self._origin[sha256] = path
        if path is not None and self._is_in_place(sha256, Path(path), entries, stamp, check):
            return True, 0
        self._in_place.pop(sha256, None)
        for old in folder.glob("*"):  # it is complete, or it would not be there
            if old.name != name:
                with suppress(OSError):  # in use on Windows: it keeps its name
                    os.replace(old, folder / name)
            return True, 0
        if self._incoming and (self._incoming.target, self._incoming.offered) == (folder, (name, entries)):
            return False, self._incoming.received
        if self._incoming:
            self._incoming.discard()
        self._incoming = Incoming(self.folder / f"{uuid.uuid4().hex}.part", folder, name, entries)
        if self._incoming.complete:
            self._finish()
            return True, 0
        return False, 0

    def send(self, sha256: str, file: str, offset: int, data) -> int:
        """Take the next bytes of the offered clip; returns how many of the whole clip are here. Raises Body4DError."""
        incoming = self._incoming
        if incoming is None or incoming.target.name != sha256:
            raise Body4DError("This clip was not offered.", "Offer it first.", "bad_request")
        received = incoming.write(_clean(file), offset, data)
        if incoming.complete:
            self._finish()
        return received

    def _finish(self) -> None:
        incoming, self._incoming = self._incoming, None
        incoming.finish()

    @contextmanager
    def using(self, sha256: str):
        """(path, where the client has it or None) of a clip; meanwhile nobody clears it away. Raises Body4DError."""
        path, copied = self._path(sha256), sha256 not in self._in_place
        if copied and not self._users[sha256]:
            lock = self._locks[sha256] = FileLock(self.folder / f"{sha256}.lock")
            with writing(lock.path):
                lock.acquire()  # False: another engine uses it, and protects it as well
        self._users[sha256] += copied
        try:
            yield path, self._origin.get(sha256)
        finally:
            self._users[sha256] -= copied
            if copied and not self._users[sha256]:
                self._locks.pop(sha256).release()

    def clear(self) -> None:
        """Delete the copies that nobody uses, and what did not come completely."""
        if self._incoming:
            self._incoming.discard()
            self._incoming = None
        for folder in [p for p in self.folder.glob("*") if p.is_dir()]:
            lock = FileLock(self.folder / f"{folder.name}.lock")
            with writing(lock.path):
                if not lock.acquire():
                    continue
            shutil.rmtree(folder, ignore_errors=True)
            lock.release()
            with suppress(OSError):
                lock.path.unlink()

    def _folder(self, sha256: str) -> Path:
        if not re.fullmatch(r"[0-9a-f]{64}", sha256):
            raise Body4DError("A clip is named by its sha256.", code="bad_request")
        return self.folder / sha256

    def _path(self, sha256: str) -> Path:
        folder = self._folder(sha256)
        if sha256 in self._in_place:
            path, stamp = self._in_place[sha256]
            if _stamp(path) == stamp:
                return path
            raise Body4DError(f"{path} has changed or is gone since it was opened.", "Choose the clip again.", "clip_changed")
        copies = list(folder.glob("*"))
        if not copies:
            raise Body4DError("The engine does not have this clip.", "Offer and send it first.", "clip_missing")
        return copies[0]

    def _is_in_place(self, sha256: str, path: Path, entries: list[dict], theirs: str | None, check) -> bool:
        """Whether the files of that path, seen from here, are the clip. `theirs`: the stamp that they had when the client read them."""
        stamp = _stamp(path) if path.is_absolute() else None
        if stamp is None or [(_clean(name), size) for name, size, _ in stamp] != [(entry["name"], entry["bytes"]) for entry in entries]:
            return False
        known = self._in_place.get(sha256) == (path, stamp) or theirs == stamp_of(clip_files(path))
        if not known and identify(path, lambda _: check())["sha256"] != sha256:
            return False
        self._in_place[sha256] = path, stamp
        return True


class Incoming:
    """A clip on its way, as files in the folder `part`. entries: [{name, bytes}]."""

    def __init__(self, part: Path, target: Path, name: str, entries: list[dict]):
        self.part, self.target, self.entries = part, target, entries
        self.offered = name, [dict(entry) for entry in entries]
        self.is_folder = len(entries) > 1 or Path(entries[0]["name"]).suffix.lower() in SUFFIXES
        if self.is_folder and not all(Path(entry["name"]).suffix.lower() in SUFFIXES for entry in entries):
            raise Body4DError("A clip is one video, or images.", "Offer the images of the folder only.", "bad_request")
        if not self.is_folder:
            entries[0]["name"] = name  # as messages will call it
        self._name, self._hash = name, ClipHash(self.is_folder)
        self._file, self._written, self.received = -1, 0, 0
        self._lock = FileLock(part.with_name(f"{part.name}.lock"))  # against `clear` of another engine
        with writing(part):
            self._folder.mkdir(parents=True)
            self._lock.acquire()
        self._advance()

    @property
    def _folder(self) -> Path:
        return self.part / self._name if self.is_folder else self.part

    @property
    def complete(self) -> bool:
        return self._file == len(self.entries)

    def _advance(self) -> None:
        """To the next file that has bytes to come."""
        while not self.complete and (self._file < 0 or self._written == self.entries[self._file]["bytes"]):
            self._file, self._written = self._file + 1, 0
            if not self.complete:
                self._hash.begin(self.entries[self._file])
                with writing(self.part):
                    (self._folder / self.entries[self._file]["name"]).touch()

    def write(self, name: str, offset: int, data) -> int:
        """Add bytes; returns how many have come. Raises Body4DError where they are not the next ones."""
        entry = self.entries[self._file]
        if (self.is_folder and name != entry["name"]) or offset != self._written or not 0 < len(data) <= entry["bytes"] - offset:
            raise Body4DError("A part of the clip is missing.", "Offer the clip again.", "bad_request")
        with writing(self.part):
            with open(self._folder / entry["name"], "ab") as file:
                file.write(data)
        self._hash.update(data)
        self._written += len(data)
        self.received += len(data)
        self._advance()
        return self.received

    def finish(self) -> None:
        """Make it one of the clips. Raises Body4DError where it is not what was offered."""
        if self._hash.hexdigest() != self.target.name:
            self.discard()
            raise Body4DError("The clip arrived damaged.", "Send it again.", "clip_damaged")
        with writing(self.target):
            try:
                os.replace(self.part, self.target)
            except OSError:
                if not any(self.target.glob("*")):  # else another engine has received it meanwhile
                    raise
        self.discard()

    def discard(self) -> None:
        shutil.rmtree(self.part, ignore_errors=True)
        self._lock.release()
        with suppress(OSError):
            self._lock.path.unlink()


def _clean(name: str) -> str:
    """A file's name that every system takes."""
    text = re.sub(r'[<>:"/\\|?*\x00-\x1f\ud800-\udfff]', "_", name).strip(". ")
    return text[-60:].strip(". ") or "clip"


def _entries(files: list) -> list[dict]:
    """Checked and with clean names. Raises Body4DError."""
    try:
        entries = [{"name": _clean(file["name"]), "bytes": file["bytes"]} for file in files]
        good = all(type(entry["bytes"]) is int and 0 <= entry["bytes"] <= LARGEST for entry in entries)
    except (TypeError, KeyError):
        good = False
    if not good or not entries or len({entry["name"].lower() for entry in entries}) < len(entries):
        raise Body4DError("The files of a clip need a name and a size each, and different names.", code="bad_request")
    return entries


def _stamp(path: Path) -> list | None:
    """(name, bytes, time of change) of every file; None where there is no such clip."""
    try:
        files = image_files(path) if path.is_dir() else [path] if path.is_file() else []
        return [(file.name, (about := file.stat()).st_size, about.st_mtime_ns) for file in files] or None
    except (OSError, ValueError):
        return None
