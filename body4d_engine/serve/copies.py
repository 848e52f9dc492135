# SPDX-License-Identifier: Apache-2.0
"""The engine's copy of a take and the client's, where both lie on one machine."""

import os
import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from .. import wire
from ..disk import acquire, writing
from ..take import Take


def share(take: Path, folder: Path) -> None:
    """Make `folder` a copy of a take that nobody writes. The files of finished stages never change again: they are the same ones under a second
    name, where the disk can do that, and then cost neither time nor room. Raises OSError, TakeError."""
    with Take.open(take) as opened:
        entries = opened.to_json()["stages"].values()
    finished = {take / array["file"] for entry in entries for array in entry["arrays"].values()}
    finished |= {take / known.get("file", name) for entry in entries for name, known in entry["files"].items()}

    def copy(source: str, target: str) -> None:
        if Path(source) in finished:
            with suppress(OSError):  # another disk, or one without links
                os.link(source, target)
                return
        shutil.copy2(source, target)

    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(take, folder, ignore=shutil.ignore_patterns("lock"), copy_function=copy)


def forget(take: Path) -> None:
    """Delete the engine's copy of a take, if it is there, in one instant: half of one would be taken for a damaged take. Raises TakeError where
    somebody writes it."""
    if Take.exists(take):
        acquire(take).release()
        part = take.with_name(f"{uuid.uuid4().hex}.part")
        with writing(take):
            os.replace(take, part)
        shutil.rmtree(part, ignore_errors=True)  # what Windows does not delete, since it is read under its other name, goes with the next `clear`


def is_whole(copy: Path, take: Path) -> bool:
    """Whether `copy`, as seen from here, holds all that the take does. Raises TakeError where one of them cannot be read."""
    if not copy.is_absolute() or not Take.exists(copy) or not Take.exists(take):
        return False
    with Take.open(copy) as theirs, Take.open(take) as ours:
        return theirs.to_json() == ours.to_json() and wire.held(theirs) == wire.held(ours)
