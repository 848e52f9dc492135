# SPDX-License-Identifier: Apache-2.0
"""What was measured of one person: landmarks in the image and, roughly, in space, ready to be compared with the body's keypoints."""

from dataclasses import dataclass

import numpy as np

from ..models.anny.pose import LANDMARKS, LEFT_HIP, RIGHT_HIP
from ..take import State, span_of
from . import corrected, flips, hidden, trust

FLIPPED_WEIGHT = 0.07  # how much a repaired landmark still counts: a burst often has wrong legs too, so its neighbours lead
HIDDEN = 0.3  # what an invisible landmark counts in space, of a visible one
LOST = 0.3  # trust in trunk and limbs together below which a body is taken to be hidden
BLOCK = 4096  # samples read at once


@dataclass
class Observations:
    """N samples, K keypoints. Samples that are not seen hold zeros and weigh nothing.

    xy (N, K, 2) px; visibility (N, K) 0..1, how far each is trusted in the image; world (N, K, 3) metres in camera axes, about the middle of the
    hips; solid (N, K) 0..1, how far each is trusted in space; seen (N,) bool; weight (N,) 0..1, how far the sample is trusted; focal (N,) px;
    centre (N, 2) px.
    """

    xy: np.ndarray
    visibility: np.ndarray
    world: np.ndarray
    solid: np.ndarray
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


def first_seen(take, group: str) -> int:
    """The first sample of a person (`people/<id>`) that has landmarks; where none has, the first of their span."""
    first, end = span_of(take.read(group, "state", "track"))
    for start in range(first, end, BLOCK):
        part = slice(start, min(start + BLOCK, end))
        seen = was_seen(*(np.array(take.read(group, name, "track")[part]) for name in ("state", "landmarks_px", "landmarks_m")))
        if seen.any():
            return start + int(seen.argmax())
    return first


@dataclass
class Survey:
    """What is known of a person over the whole take, small enough to be held at once: arrays (T,)."""

    span: tuple[int, int]  # of `span_of`: recovered and refined is only what lies in it
    state: np.ndarray  # as tracked; VISIBLE without landmarks, or with none to be believed, counts as OCCLUDED
    seen: np.ndarray  # there are landmarks
    visibility: np.ndarray  # mean over the landmarks, as far as they are believed
    steady: np.ndarray  # (T, 33) uint8, 255 x `trust.steadiness`
    doubtful: np.ndarray  # (T, 4) bool, limbs in the order of `trust.LIMBS`
    flipped: np.ndarray  # left and right of the whole body are swapped
    swapped: np.ndarray  # (T, 4) bool, only of parts in the order of `flips.PARTS`
    cuts: frozenset[int]  # samples that begin a shot
    spacing_s: float
    asked: np.ndarray | None = None  # (T,) uint16, what the user corrects: see `corrected`

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
    span = first, end = span_of(state)
    out = Survey(span, state, np.zeros(samples, bool), np.zeros(samples), np.full((samples, 33), 255, np.uint8),
                 np.zeros((samples, len(trust.LIMBS)), bool), np.zeros(samples, bool), np.zeros((samples, len(flips.PARTS)), bool), cuts, spacing_s)
    if end > first:
        _look(take, person, out)
    return out


def _look(take, person: int, out: Survey) -> None:
    """Fill in what the person's landmarks say; of what lies outside the span nothing is read."""
    (first, end), spacing_s = out.span, out.spacing_s
    group, samples, span = f"people/{person}", end - first, slice(first, end)
    cuts, shot = frozenset(cut - first for cut in out.cuts if first < cut < end), out.shot_of()[span]
    pixels, metres, box = (take.read(group, name, "track")[span] for name in ("landmarks_px", "landmarks_m", "box"))
    state, visibility, steady, doubtful, seen = (values[span] for values in (out.state, out.visibility, out.steady, out.doubtful, out.seen))
    for start in range(0, samples, BLOCK):
        part = slice(start, start + BLOCK)
        seen[part] = was_seen(state[part], pixels[part], metres[part])
    seen &= ~_squeezed(take, person, span, seen, pixels, metres, np.array(box), shot, spacing_s)
    out.flipped[span] = flipped = flips.find(pixels, seen, spacing_s, cuts)
    out.swapped[span] = swapped = flips.find_parts(pixels, seen & ~flipped, spacing_s, cuts)
    around = trust.reach(spacing_s)
    for start in range(0, samples, BLOCK):
        low, stop = max(start - around, 0), min(start + BLOCK, samples)
        near = slice(low, min(stop + around, samples))
        part, mine = slice(start, stop), slice(start - low, stop - low)
        flat, solid = flips.repair_parts(*(np.where(seen[near, None, None], values[near], 0) for values in (pixels, metres)), swapped[near])
        calm = np.concatenate([trust.steadiness(flat[here], solid[here], seen[near][here], spacing_s)
                               for here in (shot[near] == number for number in np.unique(shot[near]))])[mine]
        steady[part] = np.round(255 * calm)
        image, _ = trust.measure(flat[mine], solid[mine], box[part], steady[part] / 255, (take.clip["width"], take.clip["height"]))
        visibility[part] = np.where(seen[part], (flat[mine, :, 2].clip(0, 1) * image).mean(1), 0)
        doubtful[part] = trust.doubtful_limbs(image) & seen[part, None]
        lost = seen[part] & (image[:, flips.CORE].mean(1) < LOST)
        state[part][lost & (state[part] == State.VISIBLE)] = State.OCCLUDED
    state[(state == State.VISIBLE) & ~seen] = State.OCCLUDED


def _squeezed(take, person: int, span: slice, seen: np.ndarray, pixels, metres, box: np.ndarray, shot: np.ndarray, spacing_s: float) -> np.ndarray:
    """(N,) bool: samples of the span that are seen, but half hidden, so that their landmarks are none of the person's."""
    others = (np.array(take.read(f"people/{entry['id']}", "box", "track")[span]) for entry in take.people if entry["id"] != person)
    suspect = seen & hidden.meeting(box, others)
    trunk, scale = np.zeros((len(seen), 2, 2)), np.ones(len(seen))
    for start in range(0, len(seen), BLOCK):
        part = slice(start, start + BLOCK)
        flat, solid = (np.where(seen[part, None, None], values[part], 0).astype(np.float64) for values in (pixels, metres))
        trunk[part] = np.stack([flat[:, [23, 24], :2].mean(1), flat[:, [11, 12], :2].mean(1)], 1)
        scale[part] = trust.scale_of(flat, solid)
    return hidden.squeezed(trunk, scale, seen, suspect, shot, spacing_s)


def read(take, person: int, samples: np.ndarray, known: Survey) -> Observations:
    """A person's samples (increasing indices) from the take's `track` stage and camera."""
    group = f"people/{person}"
    pixels, metres = (np.array(take.read(group, name, "track")[samples]) for name in ("landmarks_px", "landmarks_m"))
    camera = take.camera()
    seen, swap = known.seen[samples], known.flipped[samples]
    pixels[~seen], metres[~seen] = 0, 0
    pixels, metres = flips.repair_parts(pixels, metres, known.swapped[samples])
    image, space = trust.measure(pixels, metres, take.read(group, "box", "track")[samples], known.steady[samples] / 255,
                                 (take.clip["width"], take.clip["height"]))
    image[swap], space[swap] = image[swap][:, flips.SWAP], space[swap][:, flips.SWAP]
    pixels[swap], metres[swap] = flips.repair(pixels[swap], metres[swap])
    if known.asked is not None:
        swap = swap & (known.asked[samples] & corrected.TURNED == 0)  # the user knows
        corrected.apply(known.asked[samples], image, space, metres)
    world = metres[:, LANDMARKS].astype(np.float64)
    world -= (world[:, LEFT_HIP] + world[:, RIGHT_HIP])[:, None] / 2
    pixels = pixels[:, LANDMARKS].astype(np.float64)
    visible = np.clip(pixels[..., 2], 0, 1)
    focal, centre = (camera[name][samples].astype(np.float64) for name in ("focal_px", "principal_px"))
    world = from_sight(world, (pixels[:, LEFT_HIP, :2] + pixels[:, RIGHT_HIP, :2]) / 2 - centre, focal)
    return Observations(pixels[..., :2], visible * image[:, LANDMARKS], world, (HIDDEN + (1 - HIDDEN) * visible) * space[:, LANDMARKS], seen,
                        np.where(swap, FLIPPED_WEIGHT, 1.0) * seen, focal, centre)


def from_sight(points: np.ndarray, hips: np.ndarray, focal: np.ndarray) -> np.ndarray:
    """points (N, K, 3) in the axes of a camera that looks at the hips -> in those of the clip's camera. hips (N, 2) px from its principal point.

    The landmarker sees a cut-out and cannot know where in the picture it was: its z lies along the line of sight through the hips, not along the
    optical axis. The turn is the smallest that takes one to the other.
    """
    sight = np.column_stack([hips / focal[:, None], np.ones(len(hips))])
    x, y, z = (sight / np.linalg.norm(sight, axis=1, keepdims=True)).T
    a, b = -x * y / (1 + z), 1 / (1 + z)
    turn = np.stack([1 - x * x * b, a, x, a, 1 - y * y * b, y, -x, -y, z], -1).reshape(-1, 3, 3)
    return points @ turn.transpose(0, 2, 1)
