# SPDX-License-Identifier: Apache-2.0
"""Hands and faces: the landmarks of fingers and face wherever they are large enough in the picture to be read."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from ..events import Committed, Event, Notice, Progress
from ..fit.head import POINTS
from ..fit.windows import looks_every
from ..masks import decode_mask
from ..models.blazepose import Roi
from ..models.hand_landmarker import LANDMARKS, search_roi
from ..take import State, span_of

SIDES = ((15, 17, 19), (16, 18, 20))  # pose landmarks wrist, pinky, index: left, right
FACE, EARS, EYES, MOUTH = slice(0, 11), [7, 8], [2, 5], [9, 10]
FACE_SCALE = 2.0  # side of the face's square per width of the face
# Shrunk pictures of hands (MultiPerson and SinglePerson clips): in squares of 32 to 40 px directions of the fingers' bones differ from those read
# at full size by 11 degrees in the median, of 24 to 32 px by 14, of 16 to 24 px by 20.
SMALLEST_HAND_PX, SMALLEST_FACE_PX = 36.0, 24.0
HAND_SQUARE_M = 0.25  # side of a hand's square in the world
SHORTEST_REACH_M = 0.04  # from wrist to knuckles, where the hand points at the camera
LEAST_VISIBILITY = 0.2  # of the pose's wrist; below, the hand is behind the body
FEATURES = [0, 2, 5, 9, 10]  # pose landmarks nose, eyes, corners of the mouth
FACE_ON_MESH = ([4], [362, 263], [33, 133], [291], [61])  # the same on the face mesh
SHAPES = {"hands_px": (2, LANDMARKS, 3), "hands_m": (2, LANDMARKS, 3), "face_px": (len(POINTS), 3), "face_score": ()}  # of the arrays
SAME = 0.15  # of the square's side: two hands or faces nearer to each other are one
FARTHEST = 0.6  # of the square's side: a wrist farther from the pose's is somebody else's
SMOOTH_S = 0.06  # half width of the window over which the pose's landmarks are averaged
AGREES, DISAGREES = 0.4, 0.1  # the network's chance of our side: no doubt from the one, no use below the other
USED = 0.5  # least score of a hand or face that counts as read
CHUNK = 32


@dataclass
class Look:
    """Where a person's hands and face are expected: squares or None, wrists (2, 2) px, nose, eyes and corners of the mouth (5, 2) px."""

    hands: list[Roi | None]
    wrists: np.ndarray
    face: Roi | None
    features: np.ndarray


@dataclass
class Seen:
    """A hand or face that was read: points (n, 3) px, metres (n, 3) or None, score 0..1, side of the square and distance from the pose's landmarks, px."""

    points: np.ndarray
    metres: np.ndarray | None
    score: float
    size: float
    apart: float


class Detail:
    """Decodes once more what it needs. A sample's result depends on nothing but its picture and the track around it."""

    name = "detail"
    version = 2
    needs = ("track",)

    def __init__(self, networks=None, chunk: int = CHUNK, workers: int = 2):
        """`networks()` returns (hand landmarker, face landmarker), called once per worker; the default builds the real ones."""
        self.settings = {}
        self.chunk, self.workers, self._networks = chunk, workers, networks or _lite_networks
        self._own = threading.local()

    def run(self, clip, people, take, cursor) -> Iterator[Event]:
        everyone = {person.id: f"people/{person.id}" for person in people}
        spans = {person: span_of(take.read(group, "state", "track")) for person, group in everyone.items()}
        for person, group in everyone.items():
            for name, dims in SHAPES.items():
                take.create_array(group, name, "f4", dims, span=spans[person])
        shots = np.searchsorted(clip.frames, clip.shots, side="left")
        every = looks_every(float(clip.fps) / clip.frames.step)
        total, done = take.samples, (cursor or {}).get("done", 0)
        with ThreadPoolExecutor(self.workers) as pool:
            for begin in range(done, total, self.chunk):
                samples = np.arange(begin, min(begin + self.chunk, total))
                parts = {person: (max(begin, first), min(begin + len(samples), end)) for person, (first, end) in spans.items()}
                groups = {person: group for person, group in everyone.items() if parts[person][0] < parts[person][1]}
                looks = {person: self._looks(take, group, samples, every, shots) for person, group in groups.items()}
                needed = [row for row in range(len(samples)) if any(row in found for found in looks.values())]
                out = {person: _empty(len(samples)) for person in groups}
                pictures = clip.iterate(clip.frames[int(samples[row])] for row in needed)
                for row, (_, rgb) in zip(needed, pictures, strict=True):
                    hidden = _Hidden(take, groups, int(samples[row]))
                    jobs = [(person, side, look) for person, found in looks.items() if row in found for side in (0, 1, 2)
                            for look in [found[row]] if (look.face if side == 2 else look.hands[side]) is not None]
                    seen = list(pool.map(lambda job: self._see(rgb, hidden, *job), jobs))  # noqa: B023
                    for place, (person, side, _) in enumerate(jobs):
                        if seen[place] is not None and not _is_rivals(place, seen):
                            _keep(out[person], row, side, seen[place])
                for person, group in groups.items():
                    for name, values in out[person].items():
                        take.append(group, name, values[slice(*(np.array(parts[person]) - begin))])
                take.commit({"done": int(samples[-1] + 1)})
                yield from (Committed(self.name, person, *parts[person]) for person in groups)
                yield Progress(self.name, int(samples[-1] + 1), total)
        for person in people:
            if not (take.read(everyone[person.id], "hands_px", self.name)[:, :, 0, 2] >= USED).any():
                yield Notice(self.name, "hands_not_read", f"The hands of {person.name} are too small or too hidden to be read; the fingers get a "
                             "natural pose.", person=person.id)

    def _looks(self, take, group: str, samples: np.ndarray, every: int, shots: np.ndarray) -> dict[int, Look]:
        """Row within `samples` -> where to look, from the pose's landmarks averaged over a few neighbours within the shot."""
        spacing_s = take.frames.step * take.clip["fps"][1] / take.clip["fps"][0]
        half = int(SMOOTH_S / spacing_s)
        low, high = max(0, int(samples[0]) - half), min(take.samples, int(samples[-1]) + 1 + half)
        px, metres = (np.array(take.read(group, name, "track")[low:high], np.float64) for name in ("landmarks_px", "landmarks_m"))
        state, shot = take.read(group, "state", "track")[low:high], np.searchsorted(shots, np.arange(low, high), side="right")
        usable = (state == State.VISIBLE) & np.isfinite(px).all((1, 2)) & np.isfinite(metres).all((1, 2))
        found = {}
        for row, i in enumerate(samples - low):
            if samples[row] % every or not usable[i]:
                continue
            near = np.arange(max(0, i - half), min(len(px), i + half + 1))
            weight = (1 - np.abs(near - i) / (half + 1)) * usable[near] * (shot[near] == shot[i])
            points = np.tensordot(weight / weight.sum(), px[near, :, :2], 1)
            look = _look(points, px[i, :, 2], _px_per_m(px[i], metres[i]), take.clip["width"], take.clip["height"])
            if look.face is not None or any(look.hands):
                found[row] = look
        return found

    def _see(self, rgb: np.ndarray, hidden: "_Hidden", person: int, side: int, look: Look):
        """What a network says of one hand (side 0, 1) or the face (2), or None. Runs in a worker."""
        if not hasattr(self._own, "networks"):
            self._own.networks = self._networks()
        hands, faces = self._own.networks
        if side == 2:
            face = faces.detect(rgb, look.face)
            if face.presence < USED or hidden.by_others(person, face.px[POINTS, :2]):
                return None
            apart = np.linalg.norm(np.stack([face.px[points].mean(0)[:2] for points in FACE_ON_MESH]) - look.features, axis=1).mean()
            return Seen(face.px[POINTS], None, face.presence, face.roi.size, float(apart))
        if hidden.by_others(person, look.wrists[side][None]):
            return None
        roi = hands.find(rgb, look.hands[side])
        if roi.size < SMALLEST_HAND_PX or not (0 <= roi.x < rgb.shape[1] and 0 <= roi.y < rgb.shape[0]):
            return None
        hand = hands.detect(rgb, roi)
        own_side = hand.right if side == 1 else 1 - hand.right
        score = hand.presence * float(np.clip((own_side - DISAGREES) / (AGREES - DISAGREES), 0, 1))
        apart = float(np.hypot(*(hand.px[0, :2] - look.wrists[side])))
        if apart > FARTHEST * roi.size or hidden.by_others(person, hand.px[[0, 5, 9, 13, 17], :2]):
            return None
        return Seen(hand.px, hand.metres - hand.metres[0], score, roi.size, apart)


class _Hidden:
    """Whether points of a person lie on somebody else's mask in one sample. Masks are decoded where needed only."""

    def __init__(self, take, groups: dict[int, str], sample: int):
        self._take, self._groups, self._sample, self._masks, self._lock = take, groups, sample, {}, threading.Lock()
        self._index = {person: np.array(take.read(group, "mask_index", "track")[sample]) for person, group in groups.items()}

    def by_others(self, person: int, points: np.ndarray) -> bool:
        """Whether most of the points (n, 2) px do."""
        x, y = np.floor(points).astype(int).T
        count = np.zeros(len(x), bool)
        for other, (_, length, x0, y0, w, h) in self._index.items():
            inside = (x >= x0) & (x < x0 + w) & (y >= y0) & (y < y0 + h)
            if other != person and length and inside.any():
                count[inside] |= self._mask(other)[y[inside] - y0, x[inside] - x0]
        return count.mean() > 0.5

    def _mask(self, person: int) -> np.ndarray:
        with self._lock:
            if person not in self._masks:
                offset, length, _, _, w, h = (int(v) for v in self._index[person])
                data = self._take.read(self._groups[person], "mask_bytes", "track")[offset : offset + length].tobytes()
                self._masks[person] = decode_mask(data, (0, 0, w, h), h, w)
            return self._masks[person]


def _look(points: np.ndarray, visibility: np.ndarray, px_per_m: float, width: int, height: int) -> Look:
    """Squares around hands and face of a pose: points (33, 2) px, visibility (33,)."""
    hands = []
    for wrist, pinky, index in SIDES:
        x, y = points[wrist]
        large = px_per_m * HAND_SQUARE_M >= SMALLEST_HAND_PX
        if not large or visibility[wrist] < LEAST_VISIBILITY or not (0 <= x < width and 0 <= y < height):
            hands.append(None)
            continue
        reach = (2 * points[index] + points[pinky]) / 3 - points[wrist]
        longer = max(1.0, SHORTEST_REACH_M * px_per_m / max(float(np.hypot(*reach)), 1e-6))
        roi = search_roi(points[wrist], points[pinky], points[index])
        hands.append(Roi(roi.x, roi.y, min(roi.size * longer, 1.5 * HAND_SQUARE_M * 2.7 * px_per_m), roi.angle))
    down = points[MOUTH].mean(0) - points[EYES].mean(0)
    across = max(float(np.hypot(*(points[EARS[0]] - points[EARS[1]]))), 2 * float(np.hypot(*down)))
    x, y = points[FACE].mean(0)
    face = None
    if across >= SMALLEST_FACE_PX and 0 <= x < width and 0 <= y < height:
        face = Roi(float(x), float(y), FACE_SCALE * across, float(np.arctan2(-down[0], down[1])))
    return Look(hands, points[[SIDES[0][0], SIDES[1][0]]], face, points[FEATURES])


def _px_per_m(px: np.ndarray, metres: np.ndarray) -> float:
    """How large the person is in the picture: landmarks (33, 3) px against metres."""
    flat, world = px[:, :2] - px[:, :2].mean(0), metres[:, :2] - metres[:, :2].mean(0)
    return float(np.sqrt((flat**2).sum() / max((world**2).sum(), 1e-9)))


def _empty(count: int) -> dict[str, np.ndarray]:
    return {name: np.zeros((count, *shape), np.float32) for name, shape in SHAPES.items()}


def _is_rivals(place: int, seen: list[Seen | None]) -> bool:
    """Whether what was read there is the same hand or face as another one that was read, and nearer to where that one was expected."""
    mine = seen[place]
    for other, theirs in enumerate(seen):
        if other != place and theirs is not None and len(theirs.points) == len(mine.points):
            same = np.linalg.norm((mine.points - theirs.points)[:, :2], axis=1).mean() < SAME * mine.size
            if same and (theirs.apart, other) < (mine.apart, place):
                return True
    return False


def _keep(out: dict[str, np.ndarray], row: int, side: int, seen: Seen) -> None:
    if side == 2:
        out["face_px"][row], out["face_score"][row] = seen.points, seen.score
    else:
        out["hands_px"][row, side] = np.column_stack([seen.points[:, :2], np.full(LANDMARKS, seen.score)])
        out["hands_m"][row, side] = seen.metres


def _lite_networks():
    from ..models.face_landmarker import FaceLandmarker
    from ..models.hand_landmarker import HandLandmarker

    return HandLandmarker(), FaceLandmarker()
