# SPDX-License-Identifier: Apache-2.0
"""What is remembered of one person, and which memories a frame looks at: the published tracker's choice (SAM 2, Ravi et al. 2024; frames chosen by quality as
in SAM2Long, Ding et al. 2024), kept to what later frames of the same pass can still ask for."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple

from torch import Tensor

MASKS = 7                      # mask memories per frame, the prompted frames apart: six
POINTERS = 16
PROMPTED = 4                   # prompted frames that a frame looks at
GOOD = 0.01                    # a frame is worth remembering above this quality


@dataclass
class Memory:
    """One person on one frame. `pointer` (C), `features` (h, w flattened, 64) bfloat16, `logits` (m, m) at the network's own size, `score` the logit of being
    visible, `quality` the published mean of visibility in 0..1 times the expected IoU."""

    pointer: Tensor
    score: float
    quality: float
    features: Tensor | None = None
    logits: Tensor | None = None


class Choice(NamedTuple):
    """Which memories a frame looks at. `masks`: (memory, steps): 0 for a prompted frame, else 1 for the latest of the others, 2 for the one before, and so on;
    `pointers`: (memory, distance)."""

    masks: list[tuple[Memory, int]]
    pointers: list[tuple[Memory, int]]


def nearest_prompted(frames: Iterable[int], frame: int, most: int = PROMPTED) -> list[int]:
    """At most `most` of the prompted frames: the closest before, the closest at or after, then whatever is closest in time."""
    frames = list(frames)
    if len(frames) <= most:
        return frames
    chosen = [nearest for nearest in (max((f for f in frames if f < frame), default=None), min((f for f in frames if f >= frame), default=None))
              if nearest is not None]
    rest = sorted((f for f in frames if f not in chosen), key=lambda f: abs(f - frame))
    return chosen + rest[: most - len(chosen)]


@dataclass
class Bank:
    """The memories of one person. `prompted` holds a memory per prompted frame, `tracked` those of the current pass, which goes one way through the frames.

    A pass starts from the prompted frames alone, so that neither the order of passes nor a break between them changes a result."""

    prompted: dict[int, Memory] = field(default_factory=dict)
    tracked: dict[int, Memory] = field(default_factory=dict)
    latest: int | None = None
    reverse: bool = False

    def enter(self, frame: int, reverse: bool) -> None:
        """Go on to a frame; another direction, or a frame that the pass has left behind, starts a new pass."""
        ahead = self.latest is not None and reverse == self.reverse and (self.latest - frame if reverse else frame - self.latest) >= 0
        if not ahead:
            self.tracked.clear()
        self.latest, self.reverse = frame, reverse

    def choose(self, frame: int, frames: int | None = None) -> Choice:
        """The memories for a frame that the pass has reached. `frames`: the length of the clip where it is known; clips shorter than POINTERS look at fewer."""
        limit = pointer_limit(frames)
        sign = -1 if self.reverse else 1
        selected = nearest_prompted(self.prompted, frame)
        kept_back = {f: m for f, m in self.prompted.items() if f not in selected}
        good = self._good(frame, limit)
        previous = frame - sign
        if previous not in good:
            good.append(previous)          # whatever its quality, even where it was a prompted frame
        masks = [(self.prompted[f], 0) for f in selected]
        for steps in range(min(MASKS - 1, len(good)), 0, -1):
            memory = self.tracked.get(good[-steps], kept_back.get(good[-steps]))
            if memory is not None and memory.features is not None:
                masks.append((memory, steps))
        pointers = [(self.prompted[f], (frame - f) * sign) for f in selected if (frame - f) * sign >= 0]
        for place in range(1, min(limit, len(good))):      # the oldest one is left out, as published
            memory = self.tracked.get(good[-place], kept_back.get(good[-place]))
            if memory is not None:
                pointers.append((memory, place))
        return Choice(masks, pointers)

    def remember(self, frame: int, memory: Memory, frames: int | None = None) -> None:
        """Keep the memory of a tracked frame and drop all that no later frame of this pass can ask for."""
        self.tracked[frame] = memory
        sign = -1 if self.reverse else 1
        good = self._good(frame + sign, pointer_limit(frames))
        keep = {*good, frame}
        self.tracked = {f: m for f, m in self.tracked.items() if f in keep}
        with_features = {*[f for f in good if f != frame][-(MASKS - 2):], frame}
        for f, m in self.tracked.items():
            if f not in with_features:
                m.features = None
            if f != frame:
                m.logits = None

    def _good(self, frame: int, limit: int) -> list[int]:
        """The last tracked frames before this one that are worth remembering, the oldest first; at most one less than the pointers. The clip's first frame
        does not count on the way forward, as published; it is only ever tracked where all prompts are later."""
        sign = -1 if self.reverse else 1
        behind = sorted((f for f, m in self.tracked.items() if (frame - f) * sign > 0 and m.quality > GOOD and (f > 0 or self.reverse)), key=lambda f: f * sign)
        return behind[-(limit - 1):] if limit > 1 else []


def pointer_limit(frames: int | None) -> int:
    """The most object pointers that a frame of a clip of so many frames looks at."""
    return POINTERS if frames is None else max(1, min(frames, POINTERS))
