# SPDX-License-Identifier: Apache-2.0
"""Carries out a plan: packages by pip, weights from the hub; and checks the weights that were there."""

import importlib
import importlib.util
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import contextmanager
from pathlib import Path

from ..disk import FileLock
from ..errors import Body4DError
from ..events import Event, Notice, Progress
from ..weights import hub
from ..weights.catalogue import CATALOGUE, Weights
from ..weights.places import Located, hub_cache, locate, settings_folder
from ..weights.verifying import Ledger, is_checksum, replaced
from .plan import Plan, Step

Tell = Callable[[Event], None]
TELL_S = 0.25  # between two events of one download


def carry_out(plan: Plan, weights: Iterable[Located], folder: Path | None, tell: Tell, pip: Callable[[Step, Tell], None] | None = None) -> None:
    """Do all steps, packages first. `weights`: what the plan was made of; those that are whole are checked. `folder`: where weights go, None: the hub's
    cache. What can be had is fetched even where other weights are refused. Raises Body4DError at the end for what could not be had."""
    _check_room(plan, folder)
    for step in plan.steps:
        if step.kind == "packages":
            (pip or install)(step, tell)
    wanted = {located.weights.name: set(damaged(located, tell)) for located in weights}
    for step in plan.steps:
        if step.kind == "weights":
            wanted[step.name] |= set(step.files)
    wanted = {name: files for name, files in wanted.items() if files}
    if wanted:
        with _alone():
            _fetch(wanted, folder, tell)


def install(step: Step, tell: Tell) -> None:
    """Packages, by the pip of this Python: from PyTorch's index what only it has, the rest from where this pip has its packages. Raises Body4DError."""
    if importlib.util.find_spec("pip") is None:
        raise Body4DError(f"This Python has no pip: {sys.executable}.", f"Run `{sys.executable} -m ensurepip` and then this again.", "no_pip")
    index = ["--extra-index-url", step.index] if step.index else []
    process = subprocess.Popen([sys.executable, "-m", "pip", "install", "--no-input", "--disable-pip-version-check", *index, *step.requirements],
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, encoding="utf-8", errors="replace")
    lines = []
    try:
        for line in process.stdout:
            lines.append(line.rstrip())
            if line.lstrip().startswith(("Downloading", "Installing", "Collecting", "Using cached")):
                tell(Progress("packages", 0, 0, unit="package", note=line.strip()))
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.stdout.close()
    if code:
        said = "; ".join(line for line in lines if "ERROR" in line) or "; ".join(lines[-3:])
        raise Body4DError(f"pip could not install {' '.join(step.requirements)}: {said}", "Correct that and run the same command again.", "pip")
    importlib.invalidate_caches()


def damaged(located: Located, tell: Tell, ledger: Ledger | None = None) -> list[str]:
    """Files that are there at their full size and are not what the hub publishes. A checksum that is only unknown to us is asked of the hub."""
    ledger, bad = ledger or Ledger(), []
    for name, path in located.files.items():
        known = next((file for file in located.weights.files if file.name == name), None)
        if known is None or not known.sha256 or name in located.short:
            continue
        if ledger.sound(path, known.sha256, _steady(tell, located.weights.name, path.stat().st_size, f"checking {name}")):
            continue
        try:
            now = hub.ask(located.weights, name).etag
        except Body4DError as error:
            tell(Notice(located.weights.name, "unknown_file", f"{path} is not the file that this version knows. The hub could not be asked: {error.message}"))
            continue
        if is_checksum(now) and ledger.sound(path, now):
            tell(Notice(located.weights.name, "newer_file", f"{path} is a newer one than this version knows. It is used if its contents fit."))
        else:
            tell(Notice(located.weights.name, "damaged_file", f"{path} is damaged and is fetched again."))
            bad.append(name)
    return bad


def _fetch(wanted: dict[str, set[str]], folder: Path | None, tell: Tell) -> None:
    refused: list[Body4DError] = []
    for name, files in wanted.items():
        weights = CATALOGUE[name]
        try:
            # All are asked for first: who may not have the second file need not wait for the first.
            remotes = {file: hub.ask(weights, file) for file in sorted(files)}
            for file, remote in remotes.items():
                _fetch_one(weights, file, remote, folder, tell)
        except Body4DError as error:
            if error.code in ("disk_full", "not_writable", "no_hub_library", "offline"):
                raise
            refused.append(error)
            tell(Notice(name, error.code, f"{error.message} {error.hint}"))
    if refused:
        messages, hints = dict.fromkeys(error.message for error in refused), dict.fromkeys(error.hint for error in refused)
        raise Body4DError(" ".join(messages), " ".join(hints), refused[0].code)


def _fetch_one(weights: Weights, name: str, remote: hub.Remote, folder: Path | None, tell: Tell) -> None:
    known = next((file for file in weights.files if file.name == name), None)
    newer = bool(known and known.sha256 and len(remote.etag) == 64 and remote.etag != known.sha256)
    if newer:
        tell(Notice(weights.name, "newer_file", f"The hub has another {name} of {weights.title} than this version knows. It is used if its contents fit."))
    path = hub.fetch(weights, name, folder, remote, _steady(tell, weights.name, remote.bytes, name))
    if is_checksum(remote.etag):
        Ledger().trust(path, remote.etag)
    if newer:
        replaced().trust(path, remote.etag)
    tell(Progress(weights.name, remote.bytes, remote.bytes, unit="byte", note=f"{name} is here and sound: {path}"))


def _steady(tell: Tell, stage: str, total: int, note: str) -> Callable[..., None]:
    """A progress callback that tells not more often than needed."""
    last = [0.0]

    def progress(done: int, _total: int = 0) -> None:
        now = time.monotonic()
        if now - last[0] >= TELL_S:
            last[0] = now
            tell(Progress(stage, done, total, unit="byte", note=note))

    return progress


def _check_room(plan: Plan, folder: Path | None) -> None:
    needs = [(Path(sys.prefix), plan.room_bytes, "packages"),
             (folder or hub_cache(), sum(step.bytes or 0 for step in plan.steps if step.kind == "weights"), "weights")]
    for place, bytes_, what in needs:
        there = next(parent for parent in (place.absolute(), *place.absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free
        if bytes_ > free:
            raise Body4DError(f"The {what} need {bytes_ / 1e9:.1f} GB in {place}; {free / 1e9:.1f} GB are free.", "Make room" +
                              (", or name another folder with --weights." if what == "weights" else "."), "disk_full")


@contextmanager
def _alone():
    """One set-up at a time: two would write into the same unfinished files."""
    folder = settings_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "setup.lock")
        free = lock.acquire()
    except OSError as error:
        raise Body4DError(f"{folder} cannot be written: {error.strerror}.", "Allow that folder to be written.", "not_writable") from error
    if not free:
        raise Body4DError("Another set-up is running.", "Wait until it is done.", "busy")
    try:
        yield
    finally:
        lock.release()


def located_for(names: Iterable[str], folder: Path | None) -> list[Located]:
    """What is there of these weights."""
    return [locate(name, folder) for name in names]
