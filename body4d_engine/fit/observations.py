# SPDX-License-Identifier: Apache-2.0
"""What was measured of one person: landmarks in the image and, roughly, in space, ready to be compared with the body's keypoints."""

from dataclasses import dataclass

import numpy as np

from ..models.anny.pose import LANDMARKS, LEFT_HIP, RIGHT_HIP
from ..take import State
from . import flips

FLIPPED_WEIGHT = 0.07  # how much a repaired landmark still counts: a burst often has wrong legs too, so its neighbours lead
EDGE, OUTSIDE_WEIGHT = 0.03, 0.15  # within 3 % of the frame's longer side from its edge landmarks are guessed more and more, beyond it they all are
BLOCK = 4096  # samples read at once


@dataclass
class Observations:
    """N samples, K keypoints. Samples that are not seen hold zeros and weigh nothing.

    xy (N, K, 2) px; visibility (N, K) 0..1; world (N, K, 3) metres in camera axes, about the middle of the hips; seen (N,) bool;
    weight (N,) 0..1, how far the sample's landmarks are trusted; focal (N,) px; centre (N, 2) px.
    """

    xy: np.ndarray
    visibility: np.ndarray
    world: np.ndarray
    seen: np.ndarray
    weight: np.ndarray
    focal: np.ndarray
    centre: np.ndarray

    def __len__(self) -> int:
        return len(self.seen)

    def __getitem__(self, index) -> "Observations":
        return Observations(*(getattr(self, name)[index] for name in self.__dataclass_fields__))


def was_seen(state: np.ndarray, landmarks_px: np.ndarray, landmarks_m: np.ndarray) -> np.ndarray:
    """(N,) whether a sample has landmarks at all."""
    usable = np.isfinite(landmarks_px).all((1, 2)) & np.isfinite(landmarks_m).all((1, 2))
    return (state != State.ABSENT) & usable & (np.nan_to_num(landmarks_px[:, :, 2]).max(1, initial=0) > 0.05)


@dataclass
class Survey:
    """What is known of a person over the whole take, small enough to be held at once: arrays (T,)."""

    state: np.ndarray  # as tracked; VISIBLE without landmarks counts as OCCLUDED
    seen: np.ndarray  # there are landmarks
    visibility: np.ndarray  # mean over the landmarks
    flipped: np.ndarray  # left and right are swapped
    cuts: frozenset[int]  # samples that begin a shot
    spacing_s: float

    def shot_of(self) -> np.ndarray:
        """(T,) number of the shot of each sample."""
        return np.isin(np.arange(len(self.seen)), list(self.cuts)).cumsum()


def survey(take, person: int, shots=()) -> Survey:
    """Read the person's track in blocks. shots: clip frames that begin a shot."""
    group, samples = f"people/{person}", take.samples
    fps = take.clip["fps"]
    frames = np.asarray(take.frames)
    cuts = frozenset(int(i) for i in np.searchsorted(frames, [f for f in shots if frames[0] < f <= frames[-1]])) if samples else frozenset()
    spacing_s = take.frames.step * fps[1] / fps[0]
    state = np.array(take.read(group, "state", "track"))
    pixels, metres = take.read(group, "landmarks_px", "track"), take.read(group, "landmarks_m", "track")
    seen, visibility = np.zeros(samples, bool), np.zeros(samples)
    for start in range(0, samples, BLOCK):
        part = slice(start, start + BLOCK)
        seen[part] = was_seen(state[part], pixels[part], metres[part])
        visibility[part] = np.where(seen[part], np.nan_to_num(pixels[part, :, 2], posinf=0).clip(0, 1).mean(1), 0)
    state[(state == State.VISIBLE) & ~seen] = State.OCCLUDED
    return Survey(state, seen, visibility, flips.find(pixels, seen, spacing_s, cuts), cuts, spacing_s)


def read(take, person: int, samples: np.ndarray, known: Survey) -> Observations:
    """A person's samples (increasing indices) from the take's `track` stage and camera."""
    group = f"people/{person}"
    pixels, metres = (np.array(take.read(group, name, "track")[samples]) for name in ("landmarks_px", "landmarks_m"))
    camera = take.camera()
    seen, swap = known.seen[samples], known.flipped[samples]
    pixels[~seen], metres[~seen] = 0, 0
    pixels[swap], metres[swap] = flips.repair(pixels[swap], metres[swap])
    world = metres[:, LANDMARKS].astype(np.float64)
    world -= (world[:, LEFT_HIP] + world[:, RIGHT_HIP])[:, None] / 2
    pixels = pixels[:, LANDMARKS].astype(np.float64)
    visibility = np.clip(pixels[..., 2], 0, 1) * _inside(pixels[..., :2], take.clip["width"], take.clip["height"])
    return Observations(pixels[..., :2], visibility, world, seen, np.where(swap, FLIPPED_WEIGHT, 1.0) * seen,
                        camera["focal_px"][samples].astype(np.float64), camera["principal_px"][samples].astype(np.float64))


def _inside(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Weights OUTSIDE_WEIGHT..1 of pixels (..., 2): 1 inside the frame, less near its edge, least beyond."""
    size = np.array([width, height])
    inward = np.minimum(pixels, size - pixels).min(-1)
    return np.clip(inward / (EDGE * size.max()), OUTSIDE_WEIGHT, 1)
