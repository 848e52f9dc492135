# SPDX-License-Identifier: Apache-2.0
"""Follows everybody from frame to frame, one frame at a time; knows nothing of clips and files.

Each track looks for its person where the last pose said, the detector finds whoever is not followed, and one optimal assignment decides who is
who. A track that loses its person ends; whether a later one is the same person is for `linking` to say, which sees the whole clip.
"""

from dataclasses import dataclass, field, replace

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..models.blazepose import Pose, Roi
from ..models.people_detector import Detection
from . import appearance, search
from .motion import Motion, place_of, scale_of

MIN_PRESENCE = 0.5  # the network's own threshold for "there is a person"
SURE_PRESENCE, SURE_VISIBILITY = 0.9, 0.6  # below either, other orientations are tried too: tumbling bodies
TURNS = (np.pi / 2, -np.pi / 2, np.pi)
BIRTH_SCORE = 0.3  # a detection of this score may begin a track; weaker ones only support one
SAME_BODY = 0.25  # mean distance of keypoints, in body radii, under which two poses are one body
PART, PARTS = 0.25, 0.7  # a detection's keypoint is a known person's within so many body radii; made of so large a share of such, it is nobody new
MAX_COST = 1.5  # of giving a pose to a track
UNCONFIRMED = 0.5  # cost of a pose that the detector, who looked too, does not see: the landmarker imagines people
LOOKS = 1.0  # weight of the difference in looks (0..1) against the distance in body radii
SURPRISE = 0.1  # weight of a standard deviation of the expected motion
MOST_SURPRISE = 4.0  # standard deviations: no track goes further in one step
MAX_APART = 0.8  # body radii between a track and the detection that supports it
APART = 0.2  # body radii of disagreement with the detector from which on its word is tried too
UPSIDE_DOWN_APART = 0.1  # the same for who is upside down: the landmarker takes their left for right, depending on the square's size
UPSIDE_DOWN_SIZES = (0.75, 1.15)
AGREE = 0.15  # body radii of disagreement with the detector that cost a pose most of its credit
CROWD = 0.25  # of the sides of two squares: their centres closer than this, people meet
MEETING_S, FEW = 0.07, 3  # while so few people meet, the detector looks this often; in a larger crowd at every picture
WATCH_S = 0.7  # who vanishes beside others shows again soon: so long the detector looks as often as while people meet
PATIENCE_S = 0.2  # how long a track waits for its person to show again
LOST_S = 2.5  # so long somebody who vanished inside the picture is looked for there, closely
UNSUPPORTED_S = 2.5  # how long a track lives that no detection confirms
LEAVING_S = 0.35  # the same for somebody of whom less than half is in the picture: the network goes on imagining them
MIN_INSIDE = 0.35  # of the landmarks in the picture, for anybody to be there at all
LEARN = 0.1  # share of the newest frame in a track's looks
HIDDEN_SHARE, HIDDEN_VISIBILITY = 0.5, 0.35  # less of the mask or of the landmarks seen: occluded


@dataclass
class Track:
    """One person followed without a break. `roi`: where to look next; `turn` rad per step; `motion`: as expected in the coming step."""

    id: int
    roi: Roi
    keypoints: np.ndarray
    looks: np.ndarray
    motion: Motion
    seconds: float  # per step
    turn: float = 0.0
    steps: int = 1
    missed: int = 0
    unsupported: int = 0
    doubted: bool = False  # the detector looked since and did not see the person
    person: int | None = None
    body: np.ndarray | None = None  # in the picture at hand: keypoints (17, 3) from the detector, else as expected

    def to_json(self) -> dict:
        return {**self.__dict__, "body": None, "roi": self.roi.to_json(), "keypoints": self.keypoints.tolist(), "looks": self.looks.tolist(),
                "motion": self.motion.to_json()}

    @classmethod
    def from_json(cls, data: dict) -> "Track":
        return cls(**{**data, "roi": Roi(*data["roi"]), "keypoints": np.array(data["keypoints"], np.float32),
                      "looks": np.array(data["looks"], np.float32), "motion": Motion.from_json(data["motion"])})

    @property
    def step(self) -> np.ndarray:
        """(2,) px that the person moves per step."""
        return self.motion.speed[:2] * self.seconds

    @property
    def expected(self) -> np.ndarray:
        """Where its keypoints (17, 3) should be now."""
        return self.keypoints + np.array([*self.step, 0], np.float32)

    @property
    def radius(self) -> float:
        return max(self.roi.size / 2.5, 1.0)

    def cost(self, pose: Pose, looks: np.ndarray, unconfirmed: bool) -> float:
        """Of believing that this pose is this track's person: distance from where it was expected, also in depth, and difference in looks."""
        surprise = self.motion.surprise(place_of(pose.landmarks_px, scale_of(pose.landmarks_px, pose.landmarks_m)))
        if surprise > MOST_SURPRISE:
            return np.inf
        return (body_distance(self.expected, pose.keypoints, self.radius) + SURPRISE * surprise + UNCONFIRMED * unconfirmed
                + LOOKS * max(0.0, appearance.distance(self.looks, looks) - 0.15))

    def follow(self, pose: Pose, looks: np.ndarray, learn: bool) -> None:
        """Take a new pose as the person's."""
        steps = self.missed + 1
        self.motion.update(place_of(pose.landmarks_px, scale_of(pose.landmarks_px, pose.landmarks_m)))
        self.turn = 0.5 * self.turn + 0.5 * wrapped(pose.next_roi.angle - self.roi.angle + self.turn * steps) / steps
        if learn:
            self.looks = ((1 - LEARN) * self.looks + LEARN * looks).astype(np.float32)
        self.keypoints, self.missed, self.steps = pose.keypoints.astype(np.float32), 0, self.steps + 1
        self._expect(pose.next_roi)

    def wait(self) -> None:
        """The person was not seen; go on as before."""
        self.missed += 1
        self.keypoints = self.expected
        self._expect(self.roi)

    def _expect(self, roi: Roi) -> None:
        x, y = self.step
        self.motion.advance(self.seconds)
        self.roi = Roi(roi.x + float(x), roi.y + float(y), roi.size, float(wrapped(roi.angle + self.turn)))


@dataclass(frozen=True)
class Seen:
    """What one step found of one person. looks (SIZE,); scale px per metre; mask (H, W) bool, shared with nobody; box (4,) px; occluded: mostly
    hidden; doubted: the detector looked and did not see them; crowded: others are so near that looks may be partly theirs."""

    track: int
    pose: Pose
    looks: np.ndarray
    scale: float
    mask: np.ndarray
    box: np.ndarray
    confidence: float
    occluded: bool
    doubted: bool
    crowded: bool


@dataclass
class Hint:
    """What a prompt says of one sample: where a person is (roi), or points (n, 2) px that are not on the person."""

    person: int
    sample: int
    roi: Roi | None = None
    elsewhere: list[tuple[float, float]] = field(default_factory=list)


class Tracker:
    """`step` takes frames one by one, in either direction of time. `state` is JSON; a tracker made from it goes on exactly."""

    def __init__(self, detector, landmarker, seconds_per_step: float, state: dict | None = None):
        self.detector, self.landmarker, self.seconds = detector, landmarker, seconds_per_step
        state = state or {"tracks": [], "lost": [], "next": 0, "labels": [], "bans": [], "watch": 0}
        self.tracks = [Track.from_json(data) for data in state["tracks"]]
        self.lost = [Track.from_json(data) for data in state["lost"]]  # ended inside the picture, not long ago
        self.next_id = state["next"]
        self.watch = state["watch"]  # steps for which somebody is looked for who vanished beside others
        self.labels = [tuple(said) for said in state["labels"]]  # (track, person, sample) that a prompt said
        self.bans = [tuple(said) for said in state["bans"]]  # (track, person, sample) that a prompt ruled out

    def state(self) -> dict:
        tracks, lost = ([track.to_json() for track in some] for some in (self.tracks, self.lost))
        return {"tracks": tracks, "lost": lost, "next": self.next_id, "labels": self.labels, "bans": self.bans, "watch": self.watch}

    def cut(self) -> None:
        """Another shot begins: nobody is where they were."""
        self.tracks, self.lost = [], []

    def step(self, rgb: np.ndarray, detect: bool, hints: list[Hint] = (), more: list[search.Look] = ()) -> list[Seen]:
        """Follow everybody into this picture (H, W, 3). `detect`: look for newcomers (done too where somebody is lost or people meet), and there
        where `more` says."""
        size = rgb.shape[1::-1]
        near = [[other for other in self.tracks if other is not t and touching(t.roi, other.roi)] for t in self.tracks]
        often = max(1, round(MEETING_S / self.seconds)) if len(self.tracks) <= FEW else 1
        met = any((others or self.watch) and t.steps % often == 0 for t, others in zip(self.tracks, near, strict=True))
        self.watch = max(0, self.watch - 1)
        looking = bool(detect or hints or met or any(t.missed for t in self.tracks))
        close = search.closely(self.detector, rgb, self.tracks, near, looking)
        if detect:
            close += search.closely(self.detector, rgb, self.lost, [[] for _ in self.lost], True)
        detections = search.widely(self.detector, rgb, self.tracks, close, more) if looking else None
        matches = self._matches(close if detections is None else detections)
        for track in self.tracks:
            track.body = matches[track.id].keypoints if track.id in matches else track.expected
        looked = [self._look(rgb, track, [other.body for other in others]) for track, others in zip(self.tracks, near, strict=True)]
        if detections is None and not all(there(pose, size) for pose in looked):
            detections = search.widely(self.detector, rgb, self.tracks, search.closely(self.detector, rgb, self.tracks, near, True))
            matches = self._matches(detections)
        for k, (track, others) in enumerate(zip(self.tracks, near, strict=True)):
            apart = UPSIDE_DOWN_APART if search.quarters(track.roi.angle) == 2 else APART
            if track.id in matches and (not there(looked[k], size) or detected_distance(matches[track.id], looked[k].keypoints, track.radius) > apart):
                looked[k] = self._agreeing(rgb, looked[k], matches[track.id], [other.body for other in others])
        candidates = distinct([pose for pose in looked if there(pose, size)])
        strangers = [d for d in detections or () if not explained(d, candidates)]
        newcomers = [(d, pose) for d in strangers if (pose := self._pose_of(rgb, d)) is not None and there(pose, size)]
        hinted = [pose for hint in hints if hint.roi and there(pose := self.landmarker.detect(rgb, hint.roi), size)]
        poses = distinct([*candidates, *hinted, *(pose for _, pose in newcomers)])
        looks = [appearance.describe(pose.crop, pose.logits > 0) for pose in poses]
        owner = self._assign(poses, looks, close if detections is None else detections, detections is not None, size)
        self._obey(hints, poses, looks, owner)
        births = {id(pose) for d, pose in newcomers if d.score >= BIRTH_SCORE}
        for k, pose in enumerate(poses):
            if owner[k] is None and id(pose) in births:
                owner[k] = self._begin(pose, looks[k])
        return self._see(rgb, [(owner[k], poses[k], looks[k]) for k in range(len(poses)) if owner[k] is not None])

    def _matches(self, detections: list[Detection]) -> dict[int, Detection]:
        """Id of a track -> its detection: the one-to-one assignment of least total distance."""
        if not self.tracks or not detections:
            return {}
        costs = np.array([[detected_distance(d, t.expected, t.radius) for d in detections] for t in self.tracks])
        pairs = zip(*linear_sum_assignment(np.minimum(costs, MAX_APART)), strict=True)
        return {self.tracks[t].id: detections[d] for t, d in pairs if costs[t, d] < MAX_APART}

    def _agreeing(self, rgb: np.ndarray, pose: Pose, detection: Detection, others: list[np.ndarray]) -> Pose:
        """Of a pose and those seen where the detector says, the one that agrees with the detector best."""
        roi = roi_of(detection)
        again = self.landmarker.detect(rgb, roi, detection.keypoints, others)
        tries = [pose, again, self.landmarker.detect(rgb, again.next_roi, detection.keypoints, others)]
        if search.quarters(roi.angle) == 2:
            tries += [self.landmarker.detect(rgb, replace(roi, size=size * roi.size), detection.keypoints, others) for size in UPSIDE_DOWN_SIZES]
        return max(tries, key=lambda p: sureness(p) * np.exp(-detected_distance(detection, p.keypoints, p.next_roi.size / 2.5) / AGREE))

    def _look(self, rgb: np.ndarray, track: Track, others: list[np.ndarray]) -> Pose:
        """The track's person where they are expected; turned other ways too where the network is not sure of what it sees."""
        def look(roi):
            return self.landmarker.detect(rgb, roi, track.body, others)

        pose = look(track.roi)
        if sureness(pose) >= SURE_PRESENCE * SURE_VISIBILITY and pose.presence >= SURE_PRESENCE:
            return pose
        x, y = track.step
        tries = [pose, look(pose.next_roi), look(replace(track.roi, x=track.roi.x - float(x), y=track.roi.y - float(y)))]
        for turn in TURNS:
            turned = look(replace(track.roi, angle=track.roi.angle + turn))
            tries += [turned, look(turned.next_roi)]
        return max(tries, key=lambda p: sureness(p) * np.exp(-body_distance(track.expected, p.keypoints, track.radius)))

    def _pose_of(self, rgb: np.ndarray, detection: Detection) -> Pose | None:
        """The pose of somebody detected, looked at twice; None where the two networks do not see the same body."""
        roi = roi_of(detection)
        others = [track.body for track in self.tracks if track.missed == 0 and touching(track.roi, roi)]
        pose = self.landmarker.detect(rgb, roi, detection.keypoints, others)
        if pose.presence >= MIN_PRESENCE:
            pose = max(pose, self.landmarker.detect(rgb, pose.next_roi, detection.keypoints, others), key=sureness)
        return pose if pose.presence >= MIN_PRESENCE and same_body(detection, pose) else None

    def _assign(self, poses: list[Pose], looks: list[np.ndarray], detections: list[Detection], looking: bool,
                size: tuple[int, int]) -> list[Track | None]:
        """Each pose's track or None: the one-to-one assignment of least total cost. Tracks without a pose wait, and end after a while."""
        owner: list[Track | None] = [None] * len(poses)
        supported = [any(same_body(d, pose) for d in detections) for pose in poses]
        if self.tracks and poses:
            costs = np.array([[track.cost(pose, look, looking and not sure) for pose, look, sure in
                               zip(poses, looks, supported, strict=True)] for track in self.tracks])
            for t, k in zip(*linear_sum_assignment(np.minimum(costs, MAX_COST)), strict=True):
                if costs[t, k] < MAX_COST:
                    owner[k] = self.tracks[t]
        crowded = crowding(poses)
        for k, track in enumerate(owner):
            if track is not None:
                track.follow(poses[k], looks[k], learn=not crowded[k])
                track.unsupported = 0 if supported[k] else track.unsupported + 1
                track.doubted = not supported[k] and (track.doubted or looking)
        for track in self.tracks:
            if not any(track is t for t in owner):
                track.wait()
        kept = [t for t in self.tracks if t.missed * self.seconds <= PATIENCE_S and t.unsupported * self.seconds <= (
            UNSUPPORTED_S if inside(t.keypoints, size).mean() >= 0.5 else LEAVING_S)]
        gone = [t for t in self.tracks if t.missed and not any(t is k for k in kept)]
        if any(touching(t.roi, other.roi) for t in gone for other in kept):
            self.watch = round(WATCH_S / self.seconds)
        self.tracks = kept
        self._lose([t for t in gone if inside(t.keypoints, size).mean() >= 0.5])
        return [t if any(t is kept for kept in self.tracks) else None for t in owner]

    def _lose(self, gone: list[Track]) -> None:
        """Keep in mind who vanished, until somebody is there or it is long ago. Whoever tumbled is upright again by then."""
        for track in self.lost:
            track.missed += 1
        self.lost = [t for t in self.lost if t.missed * self.seconds <= LOST_S and not any(touching(t.roi, other.roi) for other in self.tracks)]
        self.lost += [replace(t, roi=replace(t.roi, angle=0.0), motion=Motion.begin(t.motion.place)) for t in gone]

    def _obey(self, hints: list[Hint], poses: list[Pose], looks: list[np.ndarray], owner: list[Track | None]) -> None:
        """Make tracks agree with what the user said of this picture."""
        for hint in hints:
            for k, pose in enumerate(poses):
                if any(pose.mask_at(x, y) > 0 for x, y in hint.elsewhere):
                    if owner[k] is not None and owner[k].person == hint.person:
                        self._end(owner[k])
                        owner[k] = self._begin(pose, looks[k])
                    if owner[k] is not None:
                        self.bans.append((owner[k].id, hint.person, hint.sample))
        for hint in (hint for hint in hints if hint.roi):
            wanted = self._nearest(hint.roi, poses)
            for track in [t for t in self.tracks if t.person == hint.person]:
                if wanted is None or owner[wanted] is not track:
                    owner[:] = [None if t is track else t for t in owner]
                    self._end(track)
            if wanted is None:
                continue
            track = owner[wanted]
            if track is None or track.person not in (None, hint.person) or (track.id, hint.person) in [ban[:2] for ban in self.bans]:
                if track is not None:
                    self._end(track)
                track = owner[wanted] = self._begin(poses[wanted], looks[wanted])
            track.person = hint.person
            self.labels.append((track.id, hint.person, hint.sample))

    @staticmethod
    def _nearest(roi: Roi, poses: list[Pose]) -> int | None:
        """Which pose a prompt's square means."""
        distances = [np.hypot(p.next_roi.x - roi.x, p.next_roi.y - roi.y) + 0.5 * abs(p.next_roi.size - roi.size) / 2.5 for p in poses]
        return int(np.argmin(distances)) if distances and min(distances) < 0.5 * roi.size / 2.5 else None

    def _begin(self, pose: Pose, looks: np.ndarray) -> Track:
        motion = Motion.begin(place_of(pose.landmarks_px, scale_of(pose.landmarks_px, pose.landmarks_m)))
        motion.advance(self.seconds)
        track = Track(self.next_id, pose.next_roi, pose.keypoints.astype(np.float32), looks, motion, self.seconds)
        self.next_id += 1
        self.tracks.append(track)
        return track

    def _end(self, track: Track) -> None:
        self.tracks = [t for t in self.tracks if t is not track]

    def _see(self, rgb: np.ndarray, people: list[tuple[Track, Pose, np.ndarray]]) -> list[Seen]:
        """Results with masks that share no pixel: each pixel is the one's whose logit is highest."""
        height, width = rgb.shape[:2]
        best, whose = np.zeros((height, width), np.float32), np.zeros((height, width), np.uint8)
        claimed = []
        for number, (_, pose, _) in enumerate(people, 1):
            logits, (x, y) = pose.logits_in_picture(width, height)
            window = np.s_[y : y + logits.shape[0], x : x + logits.shape[1]]
            claimed.append(max(1, int((logits > 0).sum())))
            wins = logits > best[window]
            best[window][wins] = logits[wins]
            whose[window][wins] = number
        seen, crowded = [], crowding([pose for _, pose, _ in people])
        for number, (track, pose, looks) in enumerate(people, 1):
            mask = whose == number
            share = int(mask.sum()) / claimed[number - 1]
            inner = inside(pose.landmarks_px, (width, height))
            visibility = float(pose.landmarks_px[inner, 2].mean())
            confidence = pose.presence * visibility * min(1.0, 1.25 * inner.mean())
            seen.append(Seen(track.id, pose, looks, scale_of(pose.landmarks_px, pose.landmarks_m), mask, pose.box(width, height), confidence,
                             share < HIDDEN_SHARE or visibility < HIDDEN_VISIBILITY, track.doubted, crowded[number - 1]))
        return seen


def inside(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """(n,) bool: which points (n, 2 or more) px lie in a picture of (width, height)."""
    return ((points[:, :2] >= 0) & (points[:, :2] < size)).all(1)


def explained(detection: Detection, poses: list[Pose]) -> bool:
    """Whether a detection is somebody already seen, or made of parts of several of them."""
    if not poses:
        return False
    apart = [np.linalg.norm(detection.keypoints[:, :2] - p.keypoints[:, :2], axis=1) / (PART * p.next_roi.size / 2.5) for p in poses]
    weight = detection.keypoints[:, 2]
    return any(same_body(detection, p) for p in poses) or float(weight[np.min(apart, 0) < 1].sum()) > PARTS * float(weight.sum())


def there(pose: Pose, size: tuple[int, int]) -> bool:
    """Whether the network is sure of somebody who is at least partly in the picture."""
    return pose.presence >= MIN_PRESENCE and inside(pose.landmarks_px, size).mean() >= MIN_INSIDE


def sureness(pose: Pose) -> float:
    return pose.presence * float(pose.landmarks_px[:, 2].mean())


def body_distance(a: np.ndarray, b: np.ndarray, radius: float) -> float:
    """Mean distance of keypoints (17, 3) px, in body radii."""
    return float(np.linalg.norm(a[:, :2] - b[:, :2], axis=1).mean() / radius)


def detected_distance(detection: Detection, keypoints: np.ndarray, radius: float) -> float:
    """Mean distance of a detection's keypoints from others (17, 3) px, in body radii, weighted by how sure it is of them."""
    weight = detection.keypoints[:, 2] + 1e-3
    return float((weight * np.linalg.norm(detection.keypoints[:, :2] - keypoints[:, :2], axis=1)).sum() / weight.sum() / max(radius, 1.0))


def same_body(a: Detection | Pose, b: Pose) -> bool:
    """Whether two findings are one body: by the keypoints that both are sure of."""
    weight = np.minimum(a.keypoints[:, 2], b.keypoints[:, 2]) + 1e-3
    distance = np.linalg.norm(a.keypoints[:, :2] - b.keypoints[:, :2], axis=1)
    return float((weight * distance).sum() / weight.sum()) < SAME_BODY * b.next_roi.size / 2.5


def touching(a: Roi, b: Roi) -> bool:
    """Whether two squares are so close that one person may be taken for the other."""
    return np.hypot(a.x - b.x, a.y - b.y) < CROWD * (a.size + b.size)


def crowding(poses: list[Pose]) -> list[bool]:
    """Whose square touches another's."""
    return [any(k != j and touching(poses[k].roi, poses[j].roi) for j in range(len(poses))) for k in range(len(poses))]


def distinct(poses: list[Pose]) -> list[Pose]:
    """The poses less those of a body that an earlier, or a surer, one has."""
    kept: list[Pose] = []
    for pose in sorted(poses, key=sureness, reverse=True):
        if not any(same_body(pose, other) for other in kept):
            kept.append(pose)
    return [pose for pose in poses if any(pose is k for k in kept)]


def roi_of(detection: Detection) -> Roi:
    """The square in which to look for a detected person's pose."""
    points, scores = detection.keypoints[:, :2], detection.keypoints[:, 2]
    hips, shoulders = points[11:13].mean(0), points[5:7].mean(0)
    if scores[11:13].mean() < 0.1:  # cut by the picture's edge: the box is all there is
        middle = (detection.box[:2] + detection.box[2:]) / 2
        return Roi.around(middle, middle - [0, 0.6 * float(np.hypot(*(detection.box[2:] - detection.box[:2])))])
    sure = scores > 0.1
    radius = 1.15 * float(np.linalg.norm(points[sure] - hips, axis=1).max())
    up = shoulders - hips
    return Roi.around(hips, hips + up / max(float(np.linalg.norm(up)), 1e-6) * radius)


def wrapped(angle: float) -> float:
    return float((angle + np.pi) % (2 * np.pi) - np.pi)
