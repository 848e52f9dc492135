# SPDX-License-Identifier: Apache-2.0
"""Numbers for the quality of a result, one class each.

    evaluate(take, reference=None, person=None, tracking=None) -> list[Result]      all that can be had from a take
    Jitter()(Motion(joints_m, fps)) -> Result                                       one number, of arrays alone
    MPJPE()(Motion(joints_m, fps, names), Motion(true_joints_m, fps, names))        one that compares
    IDF1()(Overlap(iou, true, found)) -> Result                                     one of tracking
"""

from .accuracy import MPJPE, PAMPJPE, PVE, AccelerationError, FocalRatio, RootDepthError, RootError
from .base import Metric, Motion, Result
from .evaluation import ALONE, COMPARED, compare, compare_tracks, evaluate
from .feet import FEET, ContactPrecision, ContactRecall, FootSliding, SeenFootSliding, SkatingRatio, TrueFootSliding, WorstFootSliding
from .penetration import SelfPenetration
from .people import motion_of
from .picture import RelativeReprojectionError, ReprojectionError
from .reference import Reference, read_reference
from .smoothness import Acceleration, Jitter, PoseJitter, RootJitter
from .table import print_results, write_results
from .timing import FilteredJitterRatio, JitterRatio, PeakLag, low_pass
from .tracking import IDF1, MOTA, IDSwitches, Overlap, Truth, overlap, read_truth
from .trajectory import RTE, WAMPJPE, WMPJPE

__all__ = ["ALONE", "COMPARED", "FEET", "IDF1", "MOTA", "MPJPE", "PAMPJPE", "PVE", "RTE", "WAMPJPE", "WMPJPE", "Acceleration", "AccelerationError",
           "ContactPrecision", "ContactRecall", "FilteredJitterRatio", "FocalRatio", "FootSliding", "SeenFootSliding", "IDSwitches", "Jitter",
           "JitterRatio", "Metric", "Motion", "Overlap", "PeakLag", "PoseJitter", "Reference", "RelativeReprojectionError", "ReprojectionError",
           "Result", "RootDepthError", "RootError", "RootJitter", "SelfPenetration", "SkatingRatio", "TrueFootSliding", "Truth", "WorstFootSliding",
           "compare", "compare_tracks", "evaluate", "low_pass", "motion_of", "overlap", "print_results", "read_reference", "read_truth", "write_results"]
