# SPDX-License-Identifier: GPL-3.0-or-later
"""What the extension carries for an engine environment, and the lock in it."""

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

from body4d_engine.errors import Body4DError

CARRIED = Path(__file__).resolve().parent.parent / "wheels"
ACTIVE = {"": True, "sys_platform != 'win32'": os.name != "nt", "sys_platform == 'win32'": os.name == "nt"}


class Package(NamedTuple):
    """One entry of the lock that applies to this system."""

    name: str
    version: str
    hashes: tuple[str, ...]

    def found_in(self, folder: Path) -> bool:
        start = f"{re.sub(r'[-_.]+', '_', self.name)}-{self.version}-".lower()
        return any(re.sub(r"[-_.]+", "_", file.name.lower()).startswith(re.sub(r"[-_.]+", "_", start)) for file in folder.glob("*.whl"))


class Bundle(NamedTuple):
    engine: Path  # wheels
    models: Path
    pip: Path
    lock: Path  # exact versions and hashes of everything else
    full: Path  # of the full engine's packages, torch's builds among them

    @property
    def version(self) -> str:
        return self.engine.name.split("-")[1]

    @property
    def lock_key(self) -> str:
        """Changes with the packages."""
        return hashlib.sha256(self.lock.read_bytes()).hexdigest()[:16]

    @property
    def full_key(self) -> str:
        """Changes with the full engine's packages."""
        return hashlib.sha256("\n".join(self.full_entries()).encode()).hexdigest()[:16]

    @property
    def code_key(self) -> str:
        """Changes with the engine and its models."""
        return f"{hashlib.sha256(self.engine.read_bytes()).hexdigest()[:16]} {self.models.name} {self.models.stat().st_size}"

    def packages(self) -> list[Package]:
        """What the lock asks for on this system."""
        found = []
        for entry in self.entries():
            match = re.match(r"([\w.-]+)==([\w.!+]+)\s*(?:;\s*(.*?)\s*)?(?=--hash|$)", entry)
            if ACTIVE[match[3] or ""]:
                found.append(Package(match[1], match[2], tuple(re.findall(r"--hash=(\S+)", entry))))
        return found

    def entries(self) -> list[str]:
        """The lock, a line each."""
        return _entries(self.lock)

    def full_entries(self) -> list[str]:
        """The lock of what the full engine needs on top, torch aside, whose build depends on the machine: lines of a requirements file."""
        lite = {_name(entry) for entry in self.entries()}
        return [entry for entry in _entries(self.full) if _name(entry) not in {*lite, "torch"}]


def _entries(lock: Path) -> list[str]:
    lines = lock.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [" ".join(line.split()) for line in lines if line.strip() and not line.startswith("#")]


def _name(entry: str) -> str:
    return entry.split("==")[0]


def find_bundle(folder: Path = CARRIED) -> Bundle:
    """The files of this extension. Raises Body4DError where they are not there: a checkout has none."""
    patterns = ("body4d_engine-*.whl", "body4d_lite_models-*.whl", "pip-*.whl", "lite.txt", "full.txt")
    found = [next(iter(sorted(folder.absolute().glob(pattern))), None) for pattern in patterns]
    if None in found:
        raise Body4DError(f"This copy of the add-on does not carry the engine: {folder} is missing or incomplete.",
                          "Install the extension from its zip (python scripts/build_extension.py makes it), or use an existing engine.", "no_bundle")
    return Bundle(*found)
