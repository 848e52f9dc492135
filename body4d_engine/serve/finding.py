# SPDX-License-Identifier: Apache-2.0
"""Who is on one frame, and whom a click means there: by the very functions that track, and with networks that stay loaded."""

import zlib
from collections import OrderedDict

import cv2
import numpy as np

from ..errors import Body4DError
from ..people import Person, Prompt
from ..tracking.prompts import hints_of
from ..tracking.search import looks_for_newcomers
from ..tracking.tracker import Seen, Tracker

KEEP = 8  # frames whose findings are remembered
TRUNK = [11, 12, 23, 24]  # landmarks


def load_networks() -> tuple:
    """(detector, landmarker) of the lite backend."""
    from ..models.blazepose import PoseLandmarker
    from ..models.people_detector import PeopleDetector

    return PeopleDetector(), PoseLandmarker()


class Finder:
    """check() is called before every network, and may raise. What the networks said of the latest frames is remembered, so that a second click on
    one of them costs nothing."""

    def __init__(self, check, networks=None):
        detector, landmarker = (networks or load_networks)()
        self._memory: OrderedDict[int, dict] = OrderedDict()
        self._detector, self._landmarker = _Detector(detector, check), _Landmarker(landmarker, check)

    def forget(self) -> None:
        """Another clip is open."""
        self._memory.clear()

    def everybody(self, clip, frame: int, thorough: bool = False) -> list[tuple[Seen, tuple[float, float] | None]]:
        """Everybody whom tracking would begin to follow on a frame, with a point that means this person to `meant`, px. `thorough`: also those who
        are so small that parts of the picture must be looked at one by one."""
        rgb = self._look_at(clip, frame)
        looks = looks_for_newcomers(*rgb.shape[1::-1])
        seen = self._tracker(clip).step(rgb, True, [], [look for look in looks if thorough or look.turns])
        return [(person, self._click(clip, frame, rgb, seen, number)) for number, person in enumerate(seen)]

    def meant(self, clip, frame: int, person: Person) -> Seen:
        """Whom the person's prompts on that frame mean, as tracking would take it. Raises Body4DError where they mean nobody."""
        if not any(prompt.frame == frame for prompt in person.prompts):
            raise Body4DError(f"{person.name} has no click on frame {frame}.", "Click the person there.", "no_prompt")
        rgb = self._look_at(clip, frame)
        hints = self._hints(person, frame, rgb)
        if not any(hint.roi for hint in hints):
            raise Body4DError(f"{person.name} has only negative clicks on frame {frame}.", "Add a click on the person.", "prompt_only_negative")
        tracker = self._tracker(clip)
        seen = tracker.step(rgb, True, hints)
        tracks = {track for track, number, *_ in tracker.labels if number == person.id}
        found = next((someone for someone in seen if someone.track in tracks), None)
        if found is None:
            raise Body4DError(f"{person.name} could not be followed from frame {frame}.", "Click this person where they are better seen.", "prompt_lost")
        return found

    def _look_at(self, clip, frame: int) -> np.ndarray:
        rgb = clip.read(frame)
        memory = self._memory.setdefault(frame, {})
        self._memory.move_to_end(frame)
        while len(self._memory) > KEEP:
            self._memory.popitem(last=False)
        for network in (self._detector, self._landmarker):
            network.picture, network.memory = rgb, memory
        return rgb

    def _hints(self, person: Person, frame: int, rgb: np.ndarray):
        return hints_of([person], frame=frame, sample=frame, rgb=rgb, detector=self._detector, landmarker=self._landmarker)

    def _tracker(self, clip) -> Tracker:
        return Tracker(self._detector, self._landmarker, 1 / float(clip.fps))

    def _click(self, clip, frame: int, rgb: np.ndarray, seen: list[Seen], number: int) -> tuple[float, float] | None:
        """The middle of the widest part of the mask, else of the trunk; None where neither would mean this person."""
        person = seen[number]
        depth = cv2.distanceTransform(np.pad(person.mask, 1).astype(np.uint8), cv2.DIST_L2, 3)[1:-1, 1:-1]
        y, x = np.unravel_index(depth.argmax(), depth.shape)
        for point in ((x + 0.5, y + 0.5), person.pose.landmarks_px[TRUNK, :2].mean(0)):
            click = Prompt(frame, *(round(float(v), 1) for v in point))
            try:
                hint, = self._hints(Person(1, prompts=[click]), frame, rgb)
            except Body4DError as error:
                if error.code == "cancelled":
                    raise
                continue
            apart = [np.hypot(other.pose.next_roi.x - hint.roi.x, other.pose.next_roi.y - hint.roi.y) for other in seen]
            if int(np.argmin(apart)) == number:
                return click.x, click.y
        return None


class _Remembering:
    """A network that does not look twice at the same part of a picture."""

    def __init__(self, network, check):
        self.network, self.check, self.picture, self.memory = network, check, None, {}

    def look(self, rgb: np.ndarray, *arguments):
        picture = "whole" if rgb is self.picture else (rgb.shape, zlib.crc32(np.ascontiguousarray(rgb)))
        key = (type(self.network).__name__, picture, *(_hashable(argument) for argument in arguments))
        if key not in self.memory:
            self.check()
            self.memory[key] = self.network.detect(rgb, *arguments)
        return self.memory[key]


class _Detector(_Remembering):
    def detect(self, rgb: np.ndarray, *look):
        return self.look(rgb, *look)


class _Landmarker(_Remembering):
    def detect(self, rgb: np.ndarray, roi, own=None, others=()):
        return self.look(rgb, roi, own, others) if len(others) else self.look(rgb, roi)  # whom to spare matters only where others are painted over


def _hashable(value):
    if isinstance(value, np.ndarray):
        return value.shape, value.dtype.str, value.tobytes()
    return tuple(_hashable(part) for part in value) if isinstance(value, (list, tuple)) else value
