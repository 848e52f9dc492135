# SPDX-License-Identifier: GPL-3.0-or-later
"""The lite engine's installation."""

import json
import shutil
import time
from pathlib import Path

from body4d_engine.errors import Body4DError

from . import environment, interpreters, offline, pip
from .bundle import Bundle
from .environment import Status, python_of, size_bytes, size_text
from .job import Job

# Measured with the lock of this version on Linux; other systems differ by some tenths, which only the bar shows.
DOWNLOAD_BYTES, UNPACKED_BYTES = 161e6, 476e6
ROOM_BYTES = {"whole": 750_000_000, "code": 80_000_000}  # packed and unpacked at the same time
LOCKED = ("--require-hashes", "--no-deps", "--only-binary=:all:", "--no-compile")
SPOKEN = ("--progress-bar", "raw", "--retries", "2")  # without a second try pip does not say why there is no connection


class Install(Job):
    """Install the engine into `root`, or bring it up to date; all files of Blender's own Python stay as they are.

    `chosen`: the Python to make it from, '' finds one; `own`: Blender's, the last resort; `online`: whether packages may be downloaded;
    `repair`: make everything anew. `result`: the Status. An engine that was there stays until the new one is verified.
    """

    def __init__(self, root: Path, bundle: Bundle, chosen: str = "", own: str = "", online: bool = True, repair: bool = False):
        super().__init__(root, bundle)
        self.chosen, self.own, self.online, self.repair = chosen, own, online, repair

    def work(self) -> Status:
        began = time.monotonic()
        found = environment.status(self.root)
        stamp = environment.read_stamp(found.folder) if found.folder else None
        if self.repair or not stamp or stamp["lock"] != self.bundle.lock_key or found.state in ("moved", "damaged"):
            folder, stamp = self._packages(stamp)
        else:
            folder = found.folder
            self._check_room("code")
        self._code(folder, stamp)
        self._verify(folder)
        took = time.monotonic() - began
        stamp.update(code=self.bundle.code_key, engine=self.bundle.version, bytes=size_bytes(folder), seconds=round(took, 1))
        environment.write_stamp(folder, stamp)
        environment.attach(self.root, folder)
        for other in [other for other in self.root.glob("engine-*") if other != folder]:
            shutil.rmtree(other, ignore_errors=True)  # an engine that still runs on Windows keeps its files; the next sweep gets them
        self._tell(1.0, f"Installed in {took:.0f} s, {size_text(stamp['bytes'])}")
        return environment.status(self.root, self.bundle)

    def _packages(self, before: dict | None) -> tuple[Path, dict]:
        """A new environment with the packages of the lock, and its stamp, which does not count yet."""
        self._tell(0.0, "Looking for a Python")
        python = interpreters.find(self.chosen, self.own, lambda command: self._run(command, checked=False, limit_s=30))
        self.log.append(f"Python {python.version}, {python.executable}")
        lacks = offline.missing(self.root, self.bundle)
        if not self.online and lacks:
            self.instructions = offline.instructions(self.root, self.bundle, python)
            raise Body4DError("Blender may not go online, and the packages are not here as files.",
                              "Allow online access in Preferences > System > Network, or install without internet as described.", "offline")
        self._check_room("whole")
        number = (before["number"] if before else 0) + 1
        folder = self.root / f"engine-{number}"
        if folder.exists():
            environment.remove_folder(folder)
        self._tell(0.01, "Making the environment")
        self._run([python.executable, "-I", "-X", "utf8", "-m", "venv", "--without-pip", str(folder)])
        sources = ["--find-links", str(offline.wheels_folder(self.root))] if offline.wheels_folder(self.root).is_dir() else []
        sources += ["--no-index"] if not lacks else []
        try:
            self._pip(folder, ["install", *LOCKED, *SPOKEN, *sources, "--requirement", str(self.bundle.lock)], self._downloading(folder))
        except Body4DError as error:
            if error.code in ("no_network", "proxy", "certificate"):
                self.instructions = offline.instructions(self.root, self.bundle, python)
            raise
        for tests in [t for name in ("numpy", "scipy") for p in folder.glob(f"[Ll]ib/**/site-packages/{name}") for t in p.rglob("tests") if t.is_dir()]:
            shutil.rmtree(tests, ignore_errors=True)  # 26 MB that nothing here imports
        return folder, {"number": number, "lock": self.bundle.lock_key, "code": None, "engine": "", "python": python.version, "bytes": 0, "seconds": 0.0}

    def _code(self, folder: Path, stamp: dict) -> None:
        """The engine and its models, from the extension's own wheels."""
        if stamp["code"] is not None:
            environment.write_stamp(folder, {**stamp, "code": None})  # from here on it does not count, until it is verified
        self._tell(0.92, "Installing the engine and its models")
        self._pip(folder, ["install", "--no-index", "--no-deps", "--no-compile", "--force-reinstall", str(self.bundle.engine), str(self.bundle.models)])

    def _verify(self, folder: Path) -> None:
        self._tell(0.96, "Trying the engine")
        code, output = self._run([str(python_of(folder)), "-I", "-X", "utf8", "-m", "body4d_engine", "doctor", "--json"], checked=False)
        try:
            lacks = json.loads(output[output.index("{"):output.rindex("}") + 1])["backends"]["lite"]["lacks"]
        except (ValueError, KeyError):
            raise Body4DError("The engine was installed but does not start. " + pip.last_lines(output, 4) + ".",
                              "Repair it, with another Python if that does not help.", "does_not_start") from None
        if code or lacks:
            raise Body4DError(f"The engine was installed but lacks {', '.join(lacks) or 'a backend'}.", "Repair it.", "incomplete")

    def _check_room(self, what: str) -> None:
        free = shutil.disk_usage(self.root).free
        if free < ROOM_BYTES[what]:
            raise Body4DError(f"The engine needs {size_text(ROOM_BYTES[what])} of free disk space in {self.root} while it is installed; there are "
                              f"{size_text(free)}.", "Make room, or choose a folder on another disk.", "disk_full")

    def _downloading(self, folder: Path):
        """Takes pip's lines, and None about twice a second, and tells how far it is."""
        reading, looked = pip.Reading(), [0.0]

        def take(line: str | None) -> bool:
            kept = line is not None and reading.line(line)
            if not reading.unpacking:
                text = f"Downloading {reading.package}, {size_text(reading.bytes)} so far" if reading.package else "Asking for packages"
                self._tell(0.03 + 0.57 * min(reading.bytes / DOWNLOAD_BYTES, 1.0), text)
            elif time.monotonic() - looked[0] > 1:
                looked[0] = time.monotonic()
                done = size_bytes(folder)
                self._tell(0.6 + 0.32 * min(done / UNPACKED_BYTES, 1.0), f"Unpacking, {size_text(done)} so far")
            return kept

        return take
