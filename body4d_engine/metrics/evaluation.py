# SPDX-License-Identifier: Apache-2.0
"""All numbers of a take."""

from dataclasses import replace

import numpy as np

from ..errors import Body4DError
from ..take import Take
from .accuracy import MPJPE, PAMPJPE, PVE, AccelerationError, FocalRatio, RootDepthError, RootError
from .base import Metric, Motion, Result
from .feet import ContactPrecision, ContactRecall, FootSliding, SeenFootSliding, SkatingRatio, TrueFootSliding, WorstFootSliding
from .penetration import SelfPenetration
from .people import motion_of
from .picture import RelativeReprojectionError, ReprojectionError
from .reference import Reference, distance_px, read_reference
from .smoothness import Acceleration, Jitter, PoseJitter, RootJitter
from .timing import FilteredJitterRatio, JitterRatio, PeakLag
from .tracking import IDF1, MOTA, IDSwitches, Truth, overlap, read_truth
from .trajectory import RTE, WAMPJPE, WMPJPE

ALONE: tuple[Metric, ...] = (Jitter(), PoseJitter(), RootJitter(), Acceleration(), FootSliding(), FootSliding("left"), FootSliding("right"), WorstFootSliding(),
                             SeenFootSliding(), SkatingRatio(), SelfPenetration(), ReprojectionError(), RelativeReprojectionError())
COMPARED: tuple[Metric, ...] = (MPJPE(), PAMPJPE(), PVE(), AccelerationError(), RootError(), RootDepthError(), FocalRatio(), RTE(), WMPJPE(), WAMPJPE(),
                                JitterRatio(), FilteredJitterRatio(), PeakLag(), TrueFootSliding(), ContactPrecision(), ContactRecall())


def evaluate(take: Take, reference=None, person: int | None = None, tracking=None) -> list[Result]:
    """Every number that can be had, person by person; Result.per_sample is indexed by the take's samples. Raises Body4DError.

    reference: a file as `read_reference` takes it, of `person` or else of whoever is nearest to it in the picture (the notes say whom);
    person: only this id; tracking: a file as `read_truth` takes it, for numbers of nobody in particular (the take may then have no bodies yet).
    """
    ids = [entry["id"] for entry in take.people]
    if person is not None and person not in ids:
        raise Body4DError(f"{take.path.name} has no person {person}.", f"Its people: {', '.join(map(str, ids)) or 'none'}.", "no_person")
    truth = None if reference is None else read_reference(reference)
    boxes = None if tracking is None else read_truth(tracking)
    tracked_only = boxes is not None and truth is None and not any(take.result_stage(number) for number in ids)
    judged = [] if tracked_only else ids if person is None else [person]
    chosen, why = (person, "") if truth is None or person is not None else nearest(take, truth)
    compared = [] if truth is None else compare(motion_of(take, chosen), truth)  # first, because it may fail, and the rest takes seconds
    tracked = [] if boxes is None else compare_tracks(take, boxes)
    if compared and why:
        compared[0] = replace(compared[0], note=why)
    results = []
    for number in judged:
        motion = motion_of(take, number)
        found = [metric(motion) for metric in ALONE] + (compared if number == chosen else [])
        results += [_for_take(result, number, take.samples) for result in found]
    return results + tracked


def compare(motion: Motion, reference: Reference) -> list[Result]:
    """Every number of a motion against its reference."""
    ours, truth = reference.beside(motion)
    if not (ours.present & truth.present).any():
        raise Body4DError(f"The person is absent wherever {reference.path} knows joints.", "Choose another with --person.", "reference_absent")
    return [metric(ours, truth) for metric in COMPARED]


def compare_tracks(take: Take, truth: Truth) -> list[Result]:
    """IDF1, id switches and MOTA of the take's stage `track`, by boxes and, where the truth has them, by masks."""
    results = []
    for by in ("boxes", "masks") if truth.masks else ("boxes",):
        people = overlap(take, truth, by)
        results += [_for_take(metric(people), None, take.samples) for metric in (IDF1(by), IDSwitches(by), MOTA(by))]
    return results


def nearest(take: Take, reference: Reference) -> tuple[int, str]:
    """Whose joints lie nearest to the reference's in the picture, and a note that says so."""
    distance = {entry["id"]: distance_px(motion_of(take, entry["id"]), reference) for entry in take.people}
    if not distance:
        raise Body4DError(f"{take.path.name} has nobody to compare with {reference.path}.", "Look at the clip: was anybody found?", "reference_absent")
    best = min(distance, key=distance.get)
    if not np.isfinite(distance[best]):
        raise Body4DError(f"Nobody in {take.path.name} is there when {reference.path} knows joints.", "Frames are counted from 0 in the whole clip.",
                        "reference_absent")
    return best, "" if len(distance) == 1 else f"person {best} is the nearest to the reference: {distance[best]:.0f} px"


def _for_take(result: Result, person: int | None, samples: int) -> Result:
    per_sample = result.per_sample
    if per_sample is not None and len(per_sample) < samples:
        per_sample = np.concatenate([per_sample, np.full(samples - len(per_sample), np.nan)])
    return replace(result, person=person, per_sample=per_sample)
