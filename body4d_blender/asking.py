# SPDX-License-Identifier: GPL-3.0-or-later
"""What the engine says of the people on a frame: the masks that clicks mean, everyone found, the picture itself. Kept for this run of Blender only.

Questions are made of plain values (the clip's path, the frame, the clicks), so that answers outlive undo and files, and the same question is
never asked twice. The engine is asked one thing at a time, in the order in which the user waits for it.
"""

import time
from collections import OrderedDict
from dataclasses import dataclass, field

import bpy
import numpy as np
from body4d_engine.wire import WireError, unpack_mask

from . import connection, opening
from .picking import Area, area_of, under_cursor, unpicked
from .state import active_person, clip_frame, clip_path, person_json

KEPT_BYTES = 256 << 20
STILL_S = 0.25  # on a frame, before everyone on it is looked for
PICTURE_SIDE = 1280
AGAIN = ("no_clip", "clip_missing", "clip_changed")  # the engine's errors after which the clip is opened anew
NOBODY = "Nobody is found there. Click the middle of the body, or on a frame where this person is better seen."


@dataclass(eq=False)
class Answer:
    """To one question. areas: the mask that clicks mean, or everyone found; clicks: for each of those a position (x, y) px that means this person,
    or None; text: why there is none; picture: (H, W, 3) uint8."""

    areas: list[Area] = field(default_factory=list)
    clicks: list[tuple[float, float] | None] = field(default_factory=list)
    text: str = ""
    picture: np.ndarray | None = None

    @property
    def bytes(self) -> int:
        return 200 + sum(area.mask.nbytes + area.lines.nbytes for area in self.areas) + (0 if self.picture is None else self.picture.nbytes)


class Asker:
    """`problem`: why there are no answers, for the user, until `retry`; `busy`: the question the engine is at; `opening`: the clip on its way there."""

    def __init__(self):
        self.problem = ""
        self.opening: opening.Opening | None = None
        self.answers: OrderedDict[tuple, Answer] = OrderedDict()
        self.busy: tuple | None = None
        self._looked: tuple[tuple, float] = ((), 0.0)  # what the user looks at, and since when

    def retry(self) -> None:
        """Forget what went wrong."""
        self.problem = ""

    def look(self, scene, picture: bool = False) -> None:
        """Ask the next question about the frame that the scene shows, if the engine is free. Called often, and after every click."""
        state = scene.body4d
        if not state.clip or self.problem:
            return
        frame, now = clip_frame(scene), time.monotonic()
        if self._looked[0] != (state.clip, frame):
            self._looked = (state.clip, frame), now
        if self.busy is not None or self.opening is not None:
            return
        if not is_open(state):
            self.open(clip_path(state), state.image_fps)
            return
        questions = _questions(state, frame, picture, everyone=now - self._looked[1] >= STILL_S)
        question = next((question for question in questions if question[0] not in self.answers), None)
        if question is not None:
            self.ask(*question)

    def open(self, path, image_fps: float, done=None, failed=None) -> None:
        """Have the engine open a clip in place of any other; it stays open for the questions that follow. image_fps: the rate of a folder of images.
        Then done(clip: Clip) or failed(error) is called."""

        def opened(clip) -> None:
            ended()
            self.problem = ""
            if done:
                done(clip)
            redraw()

        def refused(error) -> None:
            ended()
            if error.code != "cancelled":
                self._give_up(error)
            if failed:
                failed(error)

        def ended() -> None:
            if self.opening is mine:  # else another clip has been chosen meanwhile
                self.busy = self.opening = None

        before, self.busy = self.opening, ("open", str(path))
        mine = self.opening = opening.Opening(path, opened, refused, image_fps)
        if before:
            before.cancel()

    def forget(self) -> None:
        """No clip is chosen any more: its file may be moved."""
        self.retry()
        if self.opening:
            self.opening.cancel()
        opening.forget()

    def when_open(self, state, done, failed=None) -> None:
        """Call done() once the scene's clip is open in the engine, at once where it is."""
        if is_open(state):
            done()
        else:
            self.open(clip_path(state), state.image_fps, lambda _: done(), failed)

    def ask(self, key: tuple, method: str, params: dict, done=None, failed=None) -> None:
        """Ask and keep the answer. Then done(answer) or failed(error) is called."""

        def answered(result: dict, arrays: dict) -> None:
            self.busy = None
            answer = _read(result, arrays)
            self.keep(key, answer)
            if done:
                done(answer)
            redraw()

        def refused(error) -> None:
            self.busy = None
            if error.code in AGAIN:
                opening.lost()
            elif error.code != "cancelled":
                self._give_up(error)
            if failed:
                failed(error)

        self.busy = key
        connection.ask(method, params, done=answered, failed=refused)

    def keep(self, key: tuple, answer: Answer) -> None:
        """Keep an answer, and forget the oldest where that is too much."""
        self.answers[key] = answer
        total = sum(kept.bytes for kept in self.answers.values())
        while total > KEPT_BYTES and len(self.answers) > 1:
            total -= self.answers.popitem(last=False)[1].bytes

    def _give_up(self, error) -> None:
        self.problem = str(error)
        redraw()


asker = Asker()


def redraw() -> None:
    """Let Image Editors and the sidebar show what is new. Not the 3D View itself: nothing in it has changed, and it may be slow."""
    for window in bpy.context.window_manager.windows:
        for area in window.screen.areas:
            for region in area.regions:
                if area.type == "IMAGE_EDITOR" or (area.type == "VIEW_3D" and region.type == "UI"):
                    region.tag_redraw()


def is_open(state) -> bool:
    """Whether the engine has this scene's clip open."""
    return bool(state.clip) and opening.is_open(clip_path(state), state.image_fps)


def mask_key(state, person, frame: int) -> tuple | None:
    """The question for this person's mask on a frame; None where no click there is on the person."""
    clicks = tuple((round(c.x, 2), round(c.y, 2), c.positive) for c in person.clicks if c.frame == frame)
    return ("mask", str(clip_path(state)), frame, person.id, clicks) if any(positive for *_, positive in clicks) else None


def detect_key(state, frame: int) -> tuple:
    """The question for everyone on a frame."""
    return ("detect", str(clip_path(state)), frame)


def picture_key(state, frame: int) -> tuple:
    """The question for a frame's picture."""
    return ("picture", str(clip_path(state)), frame)


def masks_on(state, frame: int) -> dict[int, Answer | None]:
    """By index in the list, everyone who has a click on the frame: the answer, or None while there is none.

    Until the engine has answered what a first click means, that is who was found under it.
    """
    keys = {i: mask_key(state, person, frame) for i, person in enumerate(state.people)}
    return {i: asker.answers.get(key) or _likely(key) for i, key in keys.items() if key}


def _likely(key: tuple) -> Answer | None:
    _, clip, frame, _, clicks = key
    found = asker.answers.get(("detect", clip, frame))
    number = under_cursor(found.areas, *clicks[0][:2]) if found and len(clicks) == 1 else None
    return None if number is None else Answer([found.areas[number]])


def unpicked_on(state, frame: int) -> list[tuple[Area, tuple[float, float] | None]]:
    """(area, a position that means this person) of everyone found on the frame whom no click and no mask stands for."""
    found = asker.answers.get(detect_key(state, frame))
    if found is None:
        return []
    clicks = [(c.x, c.y) for person in state.people for c in person.clicks if c.frame == frame and c.positive]
    picked = [area for answer in masks_on(state, frame).values() if answer for area in answer.areas]
    return [(found.areas[i], found.clicks[i]) for i in unpicked(found.areas, picked, clicks)]


def _questions(state, frame: int, picture: bool, everyone: bool):
    """(key, method, parameters) of what the user would like to see of a frame, the most urgent first."""
    if picture:
        yield picture_key(state, frame), "picture", {"frame": frame, "max_side": PICTURE_SIDE}
    active = active_person(state)
    for person in sorted(state.people, key=lambda person: person != active):
        key = mask_key(state, person, frame) if person.visible else None
        if key:
            clicks = [click for click in person_json(person)["prompts"]["clicks"] if click[0] == frame]
            yield key, "mask", {"frame": frame, "person": {"id": person.id, "name": person.name, "prompts": {"clicks": clicks, "boxes": []}}}
    if everyone:
        yield detect_key(state, frame), "detect", {"frame": frame}


def _read(result: dict, arrays: dict) -> Answer:
    """An answer of `mask`, `detect` or `picture`."""
    if "rgb" in arrays:
        return Answer(picture=arrays["rgb"])
    answer = Answer(text=NOBODY if result.get("hit") is False else "")  # the engine's own words speak of its files and options
    try:
        for entry in result.get("people", [result]):
            area = area_of(unpack_mask(arrays[entry["mask"]["array"]], entry["mask"]["size"])) if entry["mask"] else None
            if area is not None:
                answer.areas.append(area)
                answer.clicks.append(tuple(entry["click"]) if entry.get("click") else None)
    except (WireError, KeyError, TypeError) as error:
        return Answer(text=f"The engine's answer could not be understood: {error}.")
    return answer
