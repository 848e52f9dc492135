# SPDX-License-Identifier: Apache-2.0
"""Whether a file is what the hub published. What was once found sound is not read again while its size and time stay."""

import hashlib
import json
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from .places import settings_folder

CHUNK = 1 << 22
LEDGER, REPLACED = "verified.json", "replaced.json"


def digest(file: Path, of: str, progress: Callable[[int], None] = lambda done: None) -> str:
    """The checksum of a file of the same kind as `of`: sha256 (64 digits), or what git calls a file without large-file storage (40 digits)."""
    if len(of) == 64:
        state = hashlib.sha256()
    else:
        state = hashlib.sha1(b"blob %d\0" % file.stat().st_size, usedforsecurity=False)
    done = 0
    with open(file, "rb") as stream:
        while piece := stream.read(CHUNK):
            state.update(piece)
            done += len(piece)
            progress(done)
    return state.hexdigest()


def sha256(file: Path) -> str:
    return digest(file, "0" * 64)


def is_checksum(text: str | None) -> bool:
    """Whether an etag of the hub is a checksum of the content."""
    return bool(text and re.fullmatch(r"[0-9a-f]{64}|[0-9a-f]{40}", text))


class Ledger:
    """Checksums of large files, in the user's settings folder. Losing it costs only reading them again."""

    def __init__(self, file: Path | None = None):
        self.file = file or settings_folder() / LEDGER

    def sha256(self, file: Path) -> str:
        """Of the file's content; read only where it was touched since it was last read."""
        kept = self._read().get(str(file.resolve()))
        if isinstance(kept, list) and kept[:2] == _identity(file) and isinstance(kept[-1], str) and len(kept[-1]) == 64:
            return kept[-1]
        before, found = _identity(file), sha256(file)
        if _identity(file) == before:
            self.trust(file, found)
        return found

    def sound(self, file: Path, checksum: str, progress: Callable[[int], None] = lambda done: None) -> bool:
        """Whether the file has this checksum; read only where that is not known yet."""
        if self.knows(file, checksum):
            return True
        before = _identity(file)
        if digest(file, checksum, progress) != checksum or _identity(file) != before:
            return False
        self.trust(file, checksum)
        return True

    def trust(self, file: Path, checksum: str) -> None:
        """Keep that the file was found to have this checksum."""
        self._write({**self._read(), str(file.resolve()): [*_identity(file), checksum]})

    def knows(self, file: Path, checksum: str) -> bool:
        """Whether it was found sound before, and has not been touched since."""
        return self._read().get(str(file.resolve())) == [*_identity(file), checksum]

    def has(self, file: Path) -> bool:
        """Whether it stands here and has not been touched since."""
        return self._read().get(str(file.resolve()), [])[:2] == _identity(file)

    def _read(self) -> dict:
        try:
            kept = json.loads(self.file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return kept if isinstance(kept, dict) else {}

    def _write(self, kept: dict) -> None:
        part = self.file.with_name(f"{self.file.name}.{os.getpid()}.part")
        with suppress(OSError):
            self.file.parent.mkdir(parents=True, exist_ok=True)
            part.write_text(json.dumps(kept, indent=1), encoding="utf-8")
            os.replace(part, self.file)


def replaced() -> Ledger:
    """Files that came whole from the hub and are others than this version knows: their size is right whatever the catalogue says."""
    return Ledger(settings_folder() / REPLACED)


def _identity(file: Path) -> list[int]:
    about = file.stat()
    return [about.st_size, about.st_mtime_ns]
