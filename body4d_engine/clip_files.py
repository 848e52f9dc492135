# SPDX-License-Identifier: Apache-2.0
"""Which files a clip is made of, and the hash by which both sides of the pipe know it. Standard library only: Blender imports it too."""

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from .errors import Body4DError

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp")
BLOCK = 1 << 20


def natural_key(name: str) -> list:
    """Sorts `frame9.png` before `frame10.png`."""
    return [(1, int(part), "") if part.isdigit() else (0, 0, part.lower()) for part in re.split(r"(\d+)", name)]


def image_files(folder: Path) -> list[Path]:
    """The images of a folder, in natural order of their names. Raises OSError."""
    found = (p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and not p.name.startswith(".") and p.is_file())
    return sorted(found, key=lambda p: natural_key(p.name))


def clip_files(path: Path) -> list[Path]:
    """The video itself, or the images of a folder. Raises OSError."""
    return image_files(path) if path.is_dir() else [path]


def stamp_of(files: list[Path]) -> str:
    """A name for these files as they lie on a disk now: another after any of them was written, and of a copy on another machine. Reads none of them.
    Raises OSError."""
    known = ((file.name, (about := file.stat()).st_size, about.st_mtime_ns, about.st_ino) for file in files)
    return hashlib.sha256(repr([*known]).encode("utf-8", "surrogatepass")).hexdigest()


def identify(path, watch: Callable[[float], None] = lambda fraction: None) -> dict:
    """What `offer` says of a video or a folder of images: {name, files: [{name, bytes}], sha256, path, stamp}. Reads it all; `watch` is called for
    every megabyte with how much is read, 0 to 1, and may raise to stop that. Raises Body4DError."""
    path = Path(path)
    try:
        files = clip_files(path)
        stamp = stamp_of(files)  # before the reading: what is written meanwhile has another
        if not files:
            raise Body4DError(f"The folder {path} holds no images.", f"Give a video, or a folder of {', '.join(s[1:] for s in SUFFIXES)} files.", "no_images")
        entries = [{"name": file.name, "bytes": file.stat().st_size} for file in files]
        digest, done, total = ClipHash(path.is_dir()), 0, max(1, sum(entry["bytes"] for entry in entries))
        for file, entry in zip(files, entries):
            digest.begin(entry)
            with open(file, "rb") as source:
                while data := source.read(BLOCK):
                    watch(min(1.0, done / total))
                    digest.update(data)
                    done += len(data)
    except OSError as error:
        raise Body4DError(f"{path} cannot be read: {error.strerror or error}.", "Check that it is still there and may be read.", "no_such_file") from error
    return {"name": path.name, "files": entries, "sha256": digest.hexdigest(), "path": str(path.absolute()), "stamp": stamp}


class ClipHash:
    """The sha256 of a clip: of a video that of its bytes; of a folder that of every image's name, size and bytes, in their order."""

    def __init__(self, folder: bool):
        self._folder, self._hash = folder, hashlib.sha256()

    def begin(self, entry: dict) -> None:
        """The next file {name, bytes}."""
        if self._folder:
            self._hash.update(f"{entry['name']}\0{entry['bytes']}\0".encode("utf-8", "surrogatepass"))

    def update(self, data) -> None:
        self._hash.update(data)

    def hexdigest(self) -> str:
        return self._hash.hexdigest()


def fingerprint_of(path) -> str:
    """By which a take knows its clip again, fast for any size: of a video by parts of its content, of a folder by its images' names and sizes and the
    first and last of them. Raises OSError, and Body4DError for a folder without images."""
    path = Path(path)
    if not path.is_dir():
        return _file_fingerprint(path)
    files = image_files(path)
    if not files:
        raise Body4DError(f"The folder {path} holds no images.", "Choose the folder that holds the clip's images.", "no_images")
    names = "\n".join(f"{file.name} {file.stat().st_size}" for file in files)
    return hashlib.sha256((names + _file_fingerprint(files[0]) + _file_fingerprint(files[-1])).encode()).hexdigest()


def _file_fingerprint(path: Path) -> str:
    """sha256 over the size, the first and last megabyte and eight blocks between."""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        if size <= 4 * BLOCK:
            digest.update(file.read())
        else:
            places = [(0, BLOCK), *((size * i // 9, 1 << 16) for i in range(1, 9)), (size - BLOCK, BLOCK)]
            for at, length in places:
                file.seek(at)
                digest.update(file.read(length))
    return digest.hexdigest()
