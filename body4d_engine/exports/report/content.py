# SPDX-License-Identifier: Apache-2.0
"""What a report says of the people of a take: their course over the frames, their numbers, and where to look twice."""

from dataclasses import dataclass, replace

import numpy as np

from ...errors import Body4DError
from ...fit import hands, head
from ...fit.windows import looks_every
from ...metrics import ALONE, Motion, Result, SelfPenetration, motion_of
from ...runs import runs
from ...take import State, Take

PENETRATION_SAMPLES = 24  # for everyone together, but LEAST_PENETRATION for each: one costs 0.04 s
LEAST_PENETRATION = 2
MERGE_S = 0.1  # doubtful stretches that are nearer to each other are told as one


@dataclass(frozen=True)
class Curve:
    """A value over the samples. values (T,), NaN where there is none; limit: beyond it a sample is doubtful; top: of the axis, None = what fits."""

    key: str
    title: str
    unit: str
    meaning: str
    values: np.ndarray
    limit: float
    top: float | None = None


@dataclass(frozen=True)
class Doubt:
    """Samples [begin, stop) that deserve a look, and why; `worst` of them; severity >= 1, to compare doubts of all kinds."""

    kind: str
    begin: int
    stop: int
    worst: int
    severity: float


@dataclass(frozen=True)
class PersonReport:
    """One person. state (T,) of State; contact (T, 4) bool in the order of metrics.FEET, or None; read (T, 3) bool of the
    left hand, the right hand and the face, or None; missing: why there is no more than that, or ''."""

    id: int
    name: str
    color: tuple[float, float, float]
    scale: str
    state: np.ndarray
    curves: list[Curve]
    contact: np.ndarray | None
    read: np.ndarray | None
    numbers: list[Result]
    doubts: list[Doubt]
    missing: str = ""

    def counts(self) -> dict[State, int]:
        return {state: int((self.state == state).sum()) for state in State}

    def curve(self, key: str) -> Curve | None:
        return next((curve for curve in self.curves if curve.key == key), None)

    def doubtful(self) -> np.ndarray:
        """(T,) bool: samples within any doubt."""
        flags = np.zeros(len(self.state), bool)
        for doubt in self.doubts:
            flags[doubt.begin : doubt.stop] = True
        return flags


# kind -> what it means and what one may do about it
KINDS = {
    "hidden": "not seen; the pose is inferred from the frames around",
    "low confidence": "the body was not surely seen, or does not fit what was seen",
    "sudden jump": "the joints change their motion far more abruptly than this person usually does",
    "sliding foot": "a foot that is said to stand moves",
    "off the picture": "the body lies beside the tracker's landmarks",
}
CONFIDENT = 0.5
JUMP_TIMES, LEAST_JUMP = 8.0, 500.0  # times the person's median jitter, and at least this (10 m/s^3)
SLIDE_M_S = 0.3
OFF_PERCENT = 5.0  # of the person's height in the picture


def people_of(take: Take) -> list[PersonReport]:
    """Everyone of the take, in its order."""
    return [_person(take, entry) for entry in take.people]


def _person(take: Take, entry: dict) -> PersonReport:
    number, count = entry["id"], take.samples
    about = {"id": number, "name": entry["name"], "color": tuple(entry["color"]), "scale": _scale(take, entry)}
    try:
        motion = motion_of(take, number)
    except Body4DError as error:
        return PersonReport(**about, state=np.zeros(count, np.uint8), curves=[], contact=None, read=None, numbers=[], doubts=[], missing=error.message)
    group, stage = f"people/{number}", take.result_stage(number)
    state = _over(take.by_sample(group, "state", stage)[:], count, State.ABSENT)
    there = state != State.ABSENT
    confidence = np.full(count, np.nan)
    if take.has(group, "confidence", stage):
        confidence = _over(take.by_sample(group, "confidence", stage)[:].astype(np.float64), count, np.nan)
    share = max(LEAST_PENETRATION, PENETRATION_SAMPLES // max(len(take.people), 1))
    numbers = [(replace(metric, samples=share) if isinstance(metric, SelfPenetration) else metric)(motion) for metric in ALONE]
    curves = _curves(np.where(there, confidence, np.nan), {result.name: result for result in numbers}, motion, count)
    contact = None if motion.contact is None else _over(np.nan_to_num(motion.contact) > 0.5, count, False)
    return PersonReport(**about, state=state, curves=curves, contact=contact, read=_read(take, group, motion.fps, there), numbers=numbers,
                        doubts=_doubts(state, curves, motion.fps))


def _read(take: Take, group: str, fps: float, there: np.ndarray) -> np.ndarray | None:
    """(T, 3) bool: whether the last look at the left hand, the right hand and the face could read it."""
    if not take.has(group, "hands_px", "detail"):
        return None
    scores = np.column_stack([take.by_sample(group, "hands_px", "detail")[:][:, :, 0, 2], take.by_sample(group, "face_score", "detail")])
    looks = np.arange(len(scores)) // looks_every(fps) * looks_every(fps)
    return _over(scores[looks] >= (hands.USED, hands.USED, head.USED), len(there), False) & there[:, None]


def _over(values: np.ndarray, count: int, rest) -> np.ndarray:
    """Values of the samples that are written so far, and `rest` for those that are not."""
    out = np.full((count, *values.shape[1:]), rest, values.dtype)
    out[: len(values)] = values[:count]
    return out


def _scale(take: Take, entry: dict) -> str:
    if any(notice["code"] == "scale_assumed" and notice["person"] == entry["id"] for notice in take.notices()):
        return "assumed: of average size"
    if entry.get("height_m"):
        return f"given: {entry['height_m']:g} m tall"
    if take.backend == "full":
        return "as SAM 3D Body estimates it"
    return "as the source has it" if take.stage("import") else "not stated"


def _curves(confidence: np.ndarray, results: dict[str, Result], motion: Motion, count: int) -> list[Curve]:
    found = []
    if np.isfinite(confidence).any():
        found.append(Curve("confidence", "Confidence", "0 to 1", "How sure the fit is of the pose.", confidence, CONFIDENT, 1.0))
    slide = SLIDE_M_S * 1000 / motion.fps
    jitter = results["jitter"].per_sample
    jump = LEAST_JUMP if jitter is None else max(LEAST_JUMP, JUMP_TIMES * float(np.nanmedian(jitter)))
    shown = (("jitter", "Jitter", jump), ("foot_sliding_worst", "Foot sliding, worst point", slide), ("reprojection_relative", "Off the picture", OFF_PERCENT))
    for name, title, limit in shown:
        result = results[name]
        if result.per_sample is not None:
            meaning = {"foot_sliding_worst": "How far the heel or toe that moves most, of those that stand, moves from the frame before.",
                       "reprojection_relative": "How far the body's joints lie from the tracker's landmarks."}.get(name, result.meaning)
            found.append(Curve(name, title, result.unit, meaning, _over(result.per_sample, count, np.nan), limit))
    return found


def _doubts(state: np.ndarray, curves: list[Curve], fps: float) -> list[Doubt]:
    """Of every kind, in the order of frames."""
    gap = max(1, round(MERGE_S * fps))
    hidden = ((state == State.OCCLUDED) | (state == State.FILLED)).astype(float)
    severities = {"hidden": hidden * 1.5}
    kinds = {"jitter": "sudden jump", "foot_sliding_worst": "sliding foot", "reprojection_relative": "off the picture"}
    for curve in curves:
        if curve.key == "confidence":
            unsure = (curve.values < curve.limit) & (state == State.VISIBLE)
            severities["low confidence"] = np.where(unsure, 1 + 2 * (curve.limit - curve.values) / curve.limit, 0)
        else:
            severities[kinds[curve.key]] = np.where(curve.values > curve.limit, np.minimum(curve.values / curve.limit, 5), 0)
    found = []
    for kind, severity in severities.items():
        severity = np.nan_to_num(severity)
        for begin, stop in runs(severity > 0, 0 if kind == "hidden" else gap - 1):
            found.append(Doubt(kind, begin, stop, begin + int(severity[begin:stop].argmax()), float(severity[begin:stop].max())))
    return sorted(found, key=lambda doubt: (doubt.begin, doubt.stop))
