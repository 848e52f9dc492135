# SPDX-License-Identifier: GPL-3.0-or-later
"""The full engine: its packages in a folder beside the lite engine's environment, and its weights, which the engine itself fetches."""

import json
import os
import shutil
import time
from pathlib import Path

from body4d_engine.errors import Body4DError

from . import environment, pip
from .bundle import Bundle
from .environment import python_of, size_bytes, size_text
from .install import LOCKED, SPOKEN
from .job import Job

# What the engine is started with: it ends with us. The first word is a folder whose packages it shall not see, as where they are to be replaced.
ENGINE = pip.WATCHED + """
sys.path[:] = [path for path in sys.path if not sys.argv[0] or not os.path.abspath(path).startswith(sys.argv[0] + os.sep)]
runpy.run_module("body4d_engine", run_name="__main__", alter_sys=True)
"""

LONGEST, WINDOWS = 171, 259  # characters of the longest path in PyTorch's package, and those that Windows takes as a rule


class _FullJob(Job):
    """`weights`: the folder that weights lie in or go to, '' leaves that to the engine."""

    def __init__(self, root: Path, bundle: Bundle, weights: str = "", repair: bool = False):
        super().__init__(root, bundle)
        self.weights, self.repair = weights, repair

    def _plan(self) -> tuple[Path, dict]:
        """The environment, and what the engine says is to be done: its plan (Plan.to_json), and what it knows of the user."""
        folder = self._ready()
        stamp = environment.full_stamp(self.root, folder, self.bundle)
        self._tell(0.0, "Asking the engine what is needed here")
        there = str(environment.full_folder(self.root) or "")
        for hidden in dict.fromkeys([there] if self.repair or (stamp and stamp["outdated"]) else ["", there]):
            said = next(line for line in self._engine(folder, ["--show"], hidden=hidden) if "plan" in line)
            if not any(step["kind"] == "packages" for step in said["plan"]["steps"]):
                break  # else they are made anew as a whole: what is there is not counted on
        return folder, said

    def _ready(self) -> Path:
        """The lite engine's environment. Raises Body4DError where there is none that a full engine can be added to."""
        found = environment.status(self.root, self.bundle)
        if found.state != "complete":
            raise Body4DError("The full engine is added to the lite one. " + found.words + ".", "Install or update that first.", "no_engine")
        return found.folder

    def _engine(self, folder: Path, arguments: list[str], take=lambda line: None, hidden: str = "", given: str | None = None) -> list[dict]:
        """The lines of JSON that `body4d setup full` says. Raises what it raises."""
        said, rest = [], []

        def heard(text: str | None) -> bool:
            try:
                line = json.loads(text or "")
            except ValueError:
                rest.extend([text] if text else [])
                return bool(text)
            said.append(line)
            take(line)
            return False

        start = ["-c", ENGINE, hidden] if given is None else ["-m", "body4d_engine"]
        code, _ = self._run([str(python_of(folder)), "-I", "-u", "-X", "utf8", *start, "setup", "full", "--json", *arguments], checked=False, take=heard,
                            given=given, more={"BODY4D_WEIGHTS": self.weights} if self.weights else {})
        error = next((line["error"] for line in said if "error" in line), None)
        if error:
            raise Body4DError(error["message"], error["hint"], error["code"])
        if code or not said:
            raise Body4DError(f"The engine ended with {code}. {pip.last_lines(chr(10).join(rest), 4)}.", "Repair the lite engine.", "does_not_start")
        return said


class LogIn(_FullJob):
    """Hand an access token of the hub to the engine, whose huggingface_hub tries it and keeps it for all programs of this user. It is kept nowhere else."""

    alone = False
    cancelled = ("Cancelled.", "")

    def __init__(self, root: Path, bundle: Bundle, token: str):
        super().__init__(root, bundle)
        self._token = token

    def work(self) -> bool:
        self._tell(0.5, "Logging in")
        token, self._token = self._token, ""
        self._engine(self._ready(), ["--login"], given=token.strip() + "\n")
        self._tell(1.0, "Logged in at the hub")
        return True


class LookFull(_FullJob):
    """Asks what the full engine needs on this machine. `result`: the engine's plan."""

    alone = False
    cancelled = ("Cancelled.", "Nothing was changed.")

    def work(self) -> dict:
        said = self._plan()[1]
        self._tell(1.0, "This is what the full engine needs here")
        return said


class InstallFull(_FullJob):
    """Install the full engine's packages where they lack, then fetch the weights that lack. `repair`: the packages anew, whatever is there. `online`: whether
    anything may be downloaded. `result`: the Status. The lite engine stays as it is, and works at any moment; packages count once they were tried."""

    cancelled = ("Cancelled.", "What came so far is kept: installing again goes on from there.")

    def __init__(self, root: Path, bundle: Bundle, weights: str = "", repair: bool = False, online: bool = True):
        super().__init__(root, bundle, weights, repair)
        self.online = online
        self._at = ("", 0.0, 0)  # of the download that runs: its name, when and from how many bytes on its speed is counted

    def work(self) -> environment.Status:
        folder, said = self._plan()
        steps = said["plan"]["steps"]
        packages = [step for step in steps if step["kind"] == "packages"]
        if steps and not self.online:
            raise Body4DError("Blender may not go online, and not everything is here.", "Allow online access in Preferences > System > Network.", "offline")
        known = sum(step["bytes"] or 0 for step in steps)
        self._share = (sum(step["bytes"] or 0 for step in packages) / known if known else 1.0) if packages else 0.0
        if packages:
            self._packages(folder, said, packages)
        self._fetch(folder, sum(step["bytes"] or 0 for step in steps if step["kind"] == "weights"))
        self._tell(1.0, "The full engine is installed")
        return environment.status(self.root, self.bundle)

    def _packages(self, folder: Path, said: dict, steps: list[dict]) -> None:
        """A new folder of packages, which counts once they were tried; then the older one goes."""
        began, room = time.monotonic(), said["plan"]["room_bytes"]
        if shutil.disk_usage(self.root).free < room:
            raise Body4DError(f"The full engine's packages need {size_text(room)} of free disk space in {self.root}; there are "
                              f"{size_text(shutil.disk_usage(self.root).free)}.", "Make room, or choose a folder on another disk.", "disk_full")
        if os.name == "nt":
            check_paths(str(self.root / "full-99" / "Lib" / "site-packages"), _takes_long_paths())
        before = environment.full_folder(self.root)
        number = environment.read_stamp(before)["number"] + 1 if before else 1
        full, temporary = self.root / f"full-{number}", self.root / "temporary-files"
        locked = temporary / "full.txt"
        locked.write_text("\n".join(self.bundle.full_entries()) + "\n", encoding="utf-8")
        torch, others = [[step for step in steps if step["requirements"][0].startswith("torch==") == which] for which in (True, False)]
        before_torch = sum(step["bytes"] or 0 for step in others)
        whole = 0 if any(step["bytes"] is None for step in steps) else sum(step["bytes"] for step in steps)
        self._pip(folder, ["install", "--prefix", str(full), *LOCKED, *SPOKEN, "--requirement", str(locked)], self._downloading(full, whole, room))
        for step in torch:
            self._torch(folder, full, step, self._downloading(full, whole, room, before_torch))
        environment.let_in(folder, full)
        try:
            self._try(folder)
        except BaseException:
            environment.shut_out(folder)
            if before:
                environment.attach(self.root, folder)
            raise
        environment.write_stamp(full, {"number": number, "lock": self.bundle.full_key, "python": environment.minor_of(folder), "bytes": size_bytes(full),
                                       "torch": steps[0]["what"], "seconds": round(time.monotonic() - began, 1)})
        if before:
            environment.forget(before)

    def _torch(self, folder: Path, full: Path, step: dict, take) -> None:
        """PyTorch's own index has the builds; what the environment has already stays as it is."""
        held = self.root / "temporary-files" / "held.txt"
        entries = [entry.split(" --hash")[0] for entry in (*self.bundle.entries(), *self.bundle.full_entries())]
        held.write_text("\n".join(entries) + "\n", encoding="utf-8")
        index = ["--extra-index-url", step["index"]] if step["index"] else []
        self._pip(folder, ["install", "--prefix", str(full), "--only-binary=:all:", "--no-compile", *SPOKEN, *index, "--constraint", str(held),
                           *step["requirements"]], take, seeing=environment.site_packages(full))

    def _try(self, folder: Path) -> None:
        self._tell(0.95 * self._share, "Trying PyTorch")
        _, output = self._run([str(python_of(folder)), "-I", "-X", "utf8", "-m", "body4d_engine", "doctor", "--json"], checked=False)
        try:
            said = json.loads(output[output.index("{"):output.rindex("}") + 1])
            wrong = [check for check in said["checks"] if check["name"] in ("torch", "packages") and check["state"] not in ("ok", "note")]
            lacks = said["backends"]["lite"]["lacks"]
        except (ValueError, KeyError):
            raise Body4DError("The engine does not start with the full engine's packages. " + pip.last_lines(output, 4) + ".",
                              "They are left out again. Copy the details into a report.", "does_not_start") from None
        if wrong or lacks:
            raise Body4DError("; ".join([*(f"{check['name']}: {check['found']}" for check in wrong), *lacks]) + ".",
                              "The packages are left out again. " + " ".join(check["next"] for check in wrong), "torch_does_not_work")

    def _fetch(self, folder: Path, whole: int) -> None:
        done: dict[str, int] = {}

        def take(line: dict) -> None:
            if line.get("event") == "Notice":
                self.log.append(line["message"])
            elif line.get("event") == "Progress":
                name = f"{line['stage']}: {line['note']}"
                done[name] = line["done"]
                part = min(sum(done.values()) / whole, 1.0) if whole else 0.0
                self._tell(self._share + (0.99 - self._share) * part, f"{name}, {size_text(line['done'])} of {size_text(line['total'])}" +
                           self._speed(name, line["done"]))

        self._engine(folder, ["--only", "weights", "--yes"], take)

    def _speed(self, name: str, bytes_: int) -> str:
        """Over the time since the download began or went on, in words."""
        before, since, start = self._at
        if before != name:
            self._at = (name, time.monotonic(), bytes_)
            return ""
        took = time.monotonic() - since
        return f", {size_text((bytes_ - start) / took)}/s" if took > 1 and bytes_ > start else ""

    def _downloading(self, full: Path, whole: int, room: int, before: int = 0):
        """Takes pip's lines, and None about twice a second, and tells how far it is. `whole`: bytes of all, 0 where not known; `before`: those that an
        earlier pip fetched."""
        reading, looked, size = pip.Reading(), 0.0, 0

        def take(line: str | None) -> bool:
            nonlocal looked, size
            kept = line is not None and reading.line(line)
            if reading.unpacking and time.monotonic() - looked > 1:
                looked, size = time.monotonic(), size_bytes(full)
            fetched = before + reading.bytes
            text = f"Downloading {reading.package}, {size_text(fetched)} " + (f"of about {size_text(whole)}" if whole else "so far")
            text = f"Unpacking, {size_text(size)} so far" if reading.unpacking else text if reading.package else "Asking for packages"
            self._tell(self._share * (0.6 * min(fetched / whole if whole else 0.0, 1.0) + 0.3 * min(size / room, 1.0)), text)
            return kept

        return take


def check_paths(site: str, long_paths: bool) -> None:
    """Whether Windows takes the paths of PyTorch's files in folder `site`. Raises Body4DError."""
    if len(site) + 1 + LONGEST > WINDOWS and not long_paths:
        raise Body4DError(f"In {site} the paths of PyTorch's files become longer than Windows takes.", "Choose a short folder under Install In, such as "
                          "C:\\body4d, and install the lite engine there first; or have the administrator enable long paths in Windows, and start Blender "
                          "anew.", "path_too_long")


def _takes_long_paths() -> bool:
    import winreg

    try:
        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"SYSTEM\CurrentControlSet\Control\FileSystem") as key:
            return bool(winreg.QueryValueEx(key, "LongPathsEnabled")[0])
    except OSError:
        return False
