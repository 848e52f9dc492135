# SPDX-License-Identifier: Apache-2.0
"""Follows people through a video, one picture at a time, forwards or backwards from where they were shown (SAM 2, Ravi et al. 2024; SAM 3, Carion et al. 2025).

One frame is held, and per person a bounded memory (`memory.Bank`). Everybody has a memory of their own, looks at the frames that were good for *them*, and
comes out the same whoever else is followed, but for the masks on prompted frames, which are made exclusive before they are remembered, as published."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import network
from .memory import Bank, Choice, Memory, pointer_limit
from .model import Sam3, Seen
from .pictures import clean, exclusive, resize_logits
from .state import read_state, write_state

POINTS = 16                      # the network has not seen more at once: the first half and the last half of them are used
FILLED = 16                      # holes and specks of up to so many pixels of the network's own mask are removed from what is returned
TOGETHER = 8                     # people per call of the network


class Tracked(NamedTuple):
    """One frame: per person id the logits (H, W) float32 in pixels of the picture, positive on the person, and the probability that the person is seen."""

    logits: dict[int, Tensor]
    scores: dict[int, float]


@dataclass
class Prompt:
    """What the user gave for one person on one frame: points (P, 2) in 0..1 of the picture with labels (P), or a mask (H, W) bool."""

    points: Tensor | None = None
    labels: Tensor | None = None
    mask: Tensor | None = None


class Tracker:
    """`start`, `prompt`, then `step` frame by frame, beginning with the prompted one.

    A pass goes one way. To go the other way, step on the prompted frame with the new direction and go on from there: each pass starts from the prompted
    frames alone. People without a prompted frame that was stepped on are not in the result; where somebody is prompted on several frames, step on each of
    them (with `people`) before the pass, and it knows them all. The number of a frame names its picture: the last one is held and not looked at twice.

    `exclusive`: every pixel is left to one person, by the logits. `fill`: see FILLED; 0 leaves the masks as they are. `together`: see TOGETHER."""

    def __init__(self, sam3: Sam3, exclusive: bool = True, fill: int = FILLED, together: int = TOGETHER):
        self.sam3, self.exclusive, self.fill, self.together = sam3, exclusive, fill, together
        self.start(0, 0)

    def start(self, width: int, height: int, frames: int | None = None) -> None:
        """Forget everything; a clip of width x height pixels follows. `frames`: its length, where known: the published tracker counts time differently in
        clips of less than 16 frames."""
        self.width, self.height, self.frames = width, height, frames
        self.people: dict[int, Bank] = {}
        self._prompts: dict[tuple[int, int], Prompt] = {}
        self._seen: tuple[int, Seen] | None = None

    def prompt(self, frame: int, person: int, clicks: Sequence[tuple[float, float, bool]] = (), box: Sequence[float] | None = None,
               mask: np.ndarray | None = None) -> None:
        """Say where a person is on a frame; the next `step` on that frame looks at it. Pixels of the clip, as continuous coordinates.

        Clicks are x, y and whether the person is there, *all* of this person's on this frame; a box is x0, y0, x1, y1 and may go with clicks; a mask (H, W)
        bool stands alone, an empty one says that the person is not there. Where the frame was the last one stepped on, its mask is refined."""
        if (mask is not None) == bool(len(clicks) or box is not None):
            raise ValueError("either clicks and a box, or a mask")
        if mask is not None:
            if mask.shape != (self.height, self.width):
                raise ValueError(f"a mask of {mask.shape[1]} x {mask.shape[0]} px for a clip of {self.width} x {self.height} px")
            given = Prompt(mask=torch.from_numpy(np.array(mask, bool)))
            for (other_frame, other), earlier in self._prompts.items():
                if other_frame == frame and other != person and earlier.mask is not None:
                    earlier.mask = earlier.mask & ~given.mask
        else:
            corners = [] if box is None else [(box[0], box[1]), (box[2], box[3])]
            points = torch.tensor([*corners, *((x, y) for x, y, _ in clicks)], dtype=torch.float32)
            labels = torch.tensor([*(2, 3)[: len(corners)], *(int(bool(on)) for *_, on in clicks)], dtype=torch.int32)
            if len(points) > POINTS:
                points, labels = (torch.cat((t[: POINTS // 2], t[-POINTS // 2:])) for t in (points, labels))
            given = Prompt(points=points / torch.tensor([self.width, self.height], dtype=torch.float32), labels=labels)
        self._prompts.pop((frame, person), None)
        self._prompts[frame, person] = given

    def forget(self, person: int, frame: int | None = None) -> None:
        """Forget a person, or only what was prompted for it on one frame."""
        self._prompts = {key: p for key, p in self._prompts.items() if key[1] != person or frame not in (None, key[0])}
        if frame is None:
            self.people.pop(person, None)
        elif person in self.people:
            self.people[person].prompted.pop(frame, None)
            if not self.people[person].prompted:
                del self.people[person]

    def step(self, frame: int, rgb: "np.ndarray | Seen | None" = None, reverse: bool = False, people: Iterable[int] | None = None) -> Tracked:
        """Find everybody (or only these people) on a frame. `rgb`: (H, W, 3) uint8, or what `Sam3.see` made of it; None where the frame was the last one."""
        wanted = None if people is None else set(people)
        shown = {person: p for (f, person), p in self._prompts.items() if f == frame and (wanted is None or person in wanted)}
        followed = [person for person in self.people if wanted is None or person in wanted]
        with self.sam3.computing():
            if rgb is not None:
                self._look(frame, rgb)
            before = {person: self._known(person, frame) for person in followed}
            if shown or None in before.values():
                self._view(frame)                             # nothing is changed yet if there is no picture
            for person in followed:
                self.people[person].enter(frame, reverse)
            if shown:
                self._take_prompts(frame, shown, before, reverse)
            lost = [p for p in followed if p not in shown and frame not in self.people[p].prompted and self._known(p, frame) is None]
            if lost:
                self._follow(frame, lost)
            return self._result({p: self._known(p, frame) for p in sorted({*followed, *shown})})

    def save(self, path: Path | str) -> None:
        """Write all that the next `step` needs, so that a tracker with the same weights that reads it goes on to the same result. All or nothing is written."""
        meta = {"width": self.width, "height": self.height, "frames": self.frames}
        write_state(Path(path), meta, self.people, self._prompts)

    def resume(self, path: Path | str) -> None:
        """Take up what `save` wrote. Raises Body4DError `state_unreadable`."""
        meta, people, prompts = read_state(Path(path), self.sam3.device)
        self.start(meta["width"], meta["height"], meta["frames"])
        self.people, self._prompts = people, {key: Prompt(**parts) for key, parts in prompts.items()}

    # One frame

    def _look(self, frame: int, rgb) -> None:
        seen = None if isinstance(rgb, np.ndarray) else rgb
        if (seen.height, seen.width) != (self.height, self.width) if seen else rgb.shape[:2] != (self.height, self.width):
            raise ValueError(f"frame {frame} is not {self.width} x {self.height} px")
        if seen is not None or self._seen is None or self._seen[0] != frame:
            self._seen = frame, seen or self.sam3.see(rgb)

    def _view(self, frame: int) -> network.View:
        if self._seen is None or self._seen[0] != frame:
            raise ValueError(f"frame {frame} is not the one that is held: give its picture")
        return self._seen[1].view

    def _known(self, person: int, frame: int) -> Memory | None:
        """The mask of this frame, where this pass has it already."""
        memory = self.people[person].prompted.get(frame) or self.people[person].tracked.get(frame)
        return memory if memory and memory.logits is not None else None

    def _take_prompts(self, frame: int, shown: dict[int, Prompt], before: dict[int, Memory | None], reverse: bool) -> None:
        """Make prompted frames of the prompts, and remember everybody who was prompted on this frame anew, without overlaps."""
        view, tracker = self._view(frame), self.sam3.tracker
        made = {person: self._from_mask(view, given.mask) if given.mask is not None else self._from_points(view, given, before.get(person))
                for person, given in shown.items()}
        others = [bank.prompted[frame] for person, bank in self.people.items() if frame in bank.prompted and person not in made]
        # Where two are equally sure of a pixel, as with two masks, the first has it: who was shown just now.
        memories = [*made.values(), *others]
        logits = exclusive(network.at_picture_size(tracker, torch.stack([m.logits for m in memories])))
        scores = torch.tensor([m.score for m in memories], device=logits.device)
        features = []
        for part in self._in_parts(range(len(memories))):
            features += network.encode_memory(tracker, view, logits[list(part)], scores[list(part)], prompted=True)
        # Nothing is kept before all of it is there, so that a step that ran out of memory can be repeated.
        for memory, remembered in zip(memories, features):
            memory.features = remembered
        for person, memory in made.items():
            bank = self.people.setdefault(person, Bank(latest=frame, reverse=reverse))
            bank.tracked.pop(frame, None)
            bank.prompted[frame] = memory
            del self._prompts[frame, person]

    def _from_points(self, view: network.View, given: Prompt, before: Memory | None) -> Memory:
        """The mask of points, which are read without memory; the mask that was there before is refined."""
        tracker, device = self.sam3.tracker, self.sam3.device
        mask = None if before is None else before.logits[None, None].clamp(-network.PREVIOUS_LIMIT, network.PREVIOUS_LIMIT)
        found = network.segment(tracker, network.without_memory(tracker, view), view, (given.points * tracker.image_size).to(device)[None],
                                given.labels.to(device)[None], mask, several=len(given.labels) <= 1)
        return _memories(found)[0]

    def _from_mask(self, view: network.View, mask: Tensor) -> Memory:
        """The given mask itself, which is not questioned; the network only makes the pointer."""
        tracker, mask = self.sam3.tracker, mask.to(self.sam3.device).float()
        pointer, shown = network.pointer_from_mask(tracker, view, mask)
        sure = 10.0 if bool(shown) else -10.0
        return Memory(pointer[0], sure, _quality(sure, 1.0), logits=network.low_logits_from_mask(mask, tracker.prompt_encoder.mask_input_size[0]))

    def _follow(self, frame: int, people: list[int]) -> None:
        """Find these people by their memories; those who look at equally many go through the network together."""
        view, tracker, most = self._view(frame), self.sam3.tracker, pointer_limit(self.frames)
        groups: dict[tuple[int, int], list[tuple[int, Choice]]] = {}
        for person in people:
            choice = self.people[person].choose(frame, self.frames)
            groups.setdefault((len(choice.masks), len(choice.pointers)), []).append((person, choice))
        for group in groups.values():
            for some in self._in_parts(group):
                choices = [choice for _, choice in some]
                features = [torch.stack([c.masks[m][0].features for c in choices]) for m in range(len(choices[0].masks))]
                spoken = [[memory.pointer for memory, _ in c.pointers] for c in choices]
                pointers = torch.stack([torch.stack(s) for s in spoken]) if spoken[0] else view.low.new_zeros(len(some), 0, view.low.shape[2])
                picture = network.with_memory(tracker, view, features, [[s for _, s in c.masks] for c in choices], pointers,
                                              [[d for _, d in c.pointers] for c in choices], most)
                found = network.segment(tracker, picture, view)
                logits = network.at_picture_size(tracker, found.logits)
                remembered = network.encode_memory(tracker, view, logits, found.score, prompted=False)
                for (person, _), memory, kept in zip(some, _memories(found), remembered):
                    memory.features = kept
                    self.people[person].remember(frame, memory, self.frames)

    def _in_parts(self, things: Sequence) -> list:
        return [things[i : i + self.together] for i in range(0, len(things), self.together)]

    def _result(self, found: dict[int, Memory | None]) -> Tracked:
        people = [p for p, memory in found.items() if memory is not None]
        if not people:
            return Tracked({}, {})
        logits = resize_logits(clean(torch.stack([found[p].logits for p in people]), self.fill), self.height, self.width)
        logits = exclusive(logits) if self.exclusive else logits
        return Tracked(dict(zip(people, logits)), {p: 1 / (1 + float(np.exp(-found[p].score))) for p in people})


def _quality(score: float, iou: float) -> float:
    """How much a frame is worth: visibility, from 0 where it is even to 1, times the expected IoU (the published rule)."""
    return max(0.0, 2 / (1 + float(np.exp(-score))) - 1) * iou


def _memories(found: network.Segmented) -> list[Memory]:
    numbers = torch.stack((found.score, found.iou), 1).tolist()          # the frame's one wait for the device
    return [Memory(pointer, score, _quality(score, iou), logits=logits) for pointer, logits, (score, iou) in zip(found.pointer, found.logits, numbers)]
