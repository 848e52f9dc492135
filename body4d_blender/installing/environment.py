# SPDX-License-Identifier: GPL-3.0-or-later
"""The environments on disk: which one counts, what it holds, whether its base Python is still there.

The full engine's packages lie beside the environment, in `full-N`, and are let in by one line in a .pth file. So an installation of theirs that is cut short
leaves the environment as it was, and a new environment takes over the packages that are there.
"""

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

from body4d_engine.disk import FileLock
from body4d_engine.errors import Body4DError

from .bundle import Bundle

STAMP = "body4d.json"
DOOR = "body4d-full.pth"  # in an environment's site-packages


class Status(NamedTuple):
    """What is installed.

    `state`: absent; complete; outdated (another version than the add-on carries); incomplete (cut short while it was updated);
    moved (the Python it was made from is gone); damaged (files of it are gone).
    """

    state: str
    folder: Path | None = None
    engine: str = ""  # versions
    python: str = ""
    base: str = ""  # the Python it was made from
    bytes: int = 0
    seconds: float = 0.0  # how long the installation took
    full: dict | None = None  # the stamp of the full engine's packages, where they are let in; with `outdated`: other versions than the add-on brings

    @property
    def usable(self) -> bool:
        return self.state in ("complete", "outdated")

    @property
    def words(self) -> str:
        """For the user."""
        return {"absent": "The lite engine is not installed",
                "complete": f"Lite engine {self.engine} is installed",
                "outdated": f"Lite engine {self.engine} is installed; this add-on brings another version",
                "incomplete": "An update of the lite engine was cut short: update it again",
                "moved": f"The Python that the engine was made from has moved or is gone ({self.base}): repair it",
                "damaged": "Files of the lite engine are missing: repair it"}[self.state]


def python_of(folder: Path) -> Path:
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def status(root: Path, bundle: Bundle | None = None) -> Status:
    """What is installed in `root`. Reads a few small files and starts nothing."""
    folder = current(root)
    if folder is None:
        return Status("absent")
    stamp = read_stamp(folder)
    base = configured(folder, "executable") or configured(folder, "home")
    known = Status("complete", folder, stamp["engine"], stamp["python"], base, stamp["bytes"], stamp["seconds"], full_stamp(root, folder, bundle))
    if not configured(folder, "home") or not os.path.lexists(python_of(folder)):
        return known._replace(state="damaged")
    if not Path(configured(folder, "home")).is_dir() or not python_of(folder).exists():
        return known._replace(state="moved")
    if stamp["code"] is None:
        return known._replace(state="incomplete")
    if bundle and (stamp["lock"], stamp["code"]) != (bundle.lock_key, bundle.code_key):
        return known._replace(state="outdated")
    return known


def current(root: Path) -> Path | None:
    """The environment that counts: of those with a stamp the newest."""
    folders = [(stamp["number"], folder) for folder in root.glob("engine-*") if (stamp := read_stamp(folder))]
    return max(folders)[1] if folders else None


def site_packages(folder: Path) -> list[Path]:
    """Where the packages of an environment are, or of a folder that pip took for a prefix: systems name it differently, and some have two."""
    patterns = ("[Ll]ib/site-packages", "lib/python*/site-packages", "lib64/python*/site-packages", "local/lib*/python*/dist-packages")
    return [path for pattern in patterns for path in sorted(folder.glob(pattern)) if not (path.parent.parent.is_symlink() or path.parent.is_symlink())]


def full_folder(root: Path) -> Path | None:
    """The full engine's packages that count: of those with a stamp the newest."""
    folders = [(stamp["number"], folder) for folder in root.glob("full-*") if (stamp := read_stamp(folder))]
    return max(folders)[1] if folders else None


def full_stamp(root: Path, folder: Path, bundle: Bundle | None = None) -> dict | None:
    """What is known of the full engine's packages where environment `folder` lets them in."""
    full = full_folder(root)
    if not full or not any((site / DOOR).exists() for site in site_packages(folder)):
        return None
    stamp = read_stamp(full)
    return {**stamp, "outdated": bool(bundle) and stamp["lock"] != bundle.full_key}


def let_in(folder: Path, full: Path) -> None:
    """Have environment `folder` see the packages of `full`, after its own."""
    door = site_packages(folder)[0] / DOOR
    part = door.with_name(DOOR + ".part")
    part.write_text("".join(f"{os.path.relpath(site, door.parent)}\n" for site in site_packages(full)), encoding="ascii")  # what Pythons take it for differs
    os.replace(part, door)


def shut_out(folder: Path) -> None:
    for site in site_packages(folder):
        (site / DOOR).unlink(missing_ok=True)


def attach(root: Path, folder: Path) -> None:
    """Let the full engine's packages that are there into a new environment; those made for another Python are of no use any more."""
    full = full_folder(root)
    if full and read_stamp(full)["python"] == minor_of(folder):
        let_in(folder, full)
    elif full:
        forget(full)


def forget(folder: Path) -> None:
    """Delete what was superseded: it counts no more, even where files that are in use stay until the next sweep."""
    (folder / STAMP).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def minor_of(folder: Path) -> str:
    """The Python of an environment, as "3.11"."""
    version = configured(folder, "version") or configured(folder, "version_info")
    return ".".join(version.split(".")[:2])


def read_stamp(folder: Path) -> dict | None:
    try:
        return json.loads((folder / STAMP).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:  # it is replaced whole: whatever this is, we did not write it
        raise Body4DError(f"{folder / STAMP} cannot be read: {error}.", f"Delete the folder {folder} and install the engine again.", "damaged") from error


def write_stamp(folder: Path, stamp: dict) -> None:
    part = folder / (STAMP + ".part")
    with open(part, "w", encoding="utf-8") as file:
        json.dump(stamp, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, folder / STAMP)


def configured(folder: Path, key: str) -> str:
    """An entry of pyvenv.cfg; '' where there is none."""
    try:
        lines = (folder / "pyvenv.cfg").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((value.strip() for name, _, value in (line.partition("=") for line in lines) if name.strip() == key), "")


def size_bytes(folder: Path) -> int:
    total, folders = 0, [folder]
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    else:
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # while it is being installed or removed
            continue
    return total


def size_text(count: float) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"


def remove(root: Path) -> None:
    """Delete the environments and the full engine's packages; the user's `wheels` stay, weights lie elsewhere. The engine must have ended. Raises
    Body4DError."""
    if not root.is_dir():
        return
    lock = hold(root)
    try:
        for folder in [*root.glob("engine-*"), *root.glob("full-*")]:
            remove_folder(folder)
        sweep(root)
    finally:
        lock.release()


def remove_full(root: Path) -> None:
    """Delete the full engine's packages; the lite engine and all weights stay. Raises Body4DError."""
    lock = hold(root)
    try:
        for folder in root.glob("engine-*"):
            shut_out(folder)
        for folder in [*root.glob("full-*")]:
            remove_folder(folder)
    finally:
        lock.release()


def hold(root: Path) -> FileLock:
    """The lock of whoever changes what is installed in `root`. Raises Body4DError where another Blender has it, and OSError."""
    lock = FileLock(root / "lock")
    if not lock.acquire():
        raise Body4DError("Another Blender is installing the engine here.", "Wait until it has finished.", "locked")
    return lock


def is_held(root: Path) -> bool:
    """Whether somebody changes what is installed in `root` just now. Where that cannot be known, nobody does."""
    lock = FileLock(root / "lock")
    try:
        held = lock.path.exists() and not lock.acquire()
    except OSError:
        return False
    lock.release()
    return held


def remove_folder(folder: Path) -> None:
    """Delete it so that it never counts half deleted. Raises Body4DError."""
    doomed = folder.with_name(f"old-{os.getpid()}-{folder.name}")
    try:
        os.replace(folder, doomed)  # all or nothing; a deletion may stop half-way
    except OSError as error:
        raise Body4DError(f"{folder} cannot be removed: {error.strerror or error}.", "Close other Blenders that use this engine, then try again.",
                          "in_use") from error
    shutil.rmtree(doomed, ignore_errors=True)


def sweep(root: Path) -> None:
    """Delete what cut short installations and removals left. Only the holder of the lock may."""
    for folder in [*root.glob("old-*"), *root.glob("temporary-*"), *(f for f in [*root.glob("engine-*"), *root.glob("full-*")] if not (f / STAMP).exists())]:
        shutil.rmtree(folder, ignore_errors=True)
