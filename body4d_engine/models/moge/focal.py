# SPDX-License-Identifier: Apache-2.0
"""From a point map to a focal length, and from the frames of a shot to one focal length. numpy only."""

from math import hypot

import numpy as np

from ...errors import Body4DError

SAMPLES = 64                       # rows and columns of the point map that the solve looks at
LEAST_POINTS = 2
COST_TOLERANCE = 1e-3              # the published one: it also decides how far from the exact minimum the solve stops
STEP_TOLERANCE = GRADIENT_TOLERANCE = 1e-8
MOST_TRIALS = 100
FIRST_RADIUS = 100.0
NORMAL_MAD = 1.482602218505602     # standard deviation / median absolute deviation of a normal distribution


def view_plane(width: int, height: int, aspect: float | None = None) -> np.ndarray:
    """(height, width, 2): where each pixel's centre lies, x right and y down from the picture's centre, in halves of its diagonal.

    `aspect` (width / height) is that of the picture, where a grid of other proportions covers it."""
    aspect = width / height if aspect is None else aspect
    across, down = aspect / hypot(1, aspect), 1 / hypot(1, aspect)
    u, v = ((2 * np.arange(count) + 1 - count) / count * span for count, span in ((width, across), (height, down)))
    return np.stack(np.broadcast_arrays(u[None, :], v[:, None]), -1)


def sample_rows(count: int) -> np.ndarray:
    """(64,) nearest rows (or columns) of `count`; repeated where there are fewer than 64."""
    return np.arange(SAMPLES) * count // SAMPLES


def focal_and_shift(points: np.ndarray, plane: np.ndarray) -> tuple[float, float]:
    """The focal length, in halves of the picture's diagonal, and the shift along z that make points project onto where they are seen.

    points (N, 3) in the camera's axes (x right, y down, z forward), up to scale and z shift; plane (N, 2) from `view_plane`.
    Minimises |f * xy / (z + shift) - plane|^2: f in closed form for every shift, shift by Levenberg-Marquardt from 0 with MINPACK's rules for the radius
    and for stopping (Wang et al., MoGe, 2025; Moré, The Levenberg-Marquardt algorithm, 1978). Points that are not finite are passed over. A flat wall
    seen head-on leaves the shift open and it stays 0. Both are NaN for fewer than two points, and where the focal length comes out negative or half of
    the points lie behind the camera: then the map is not one of a scene."""
    points, plane = points.astype(np.float64), plane.astype(np.float64)
    good = np.isfinite(points).all(-1)
    points, plane = points[good], plane[good]
    if len(points) < LEAST_POINTS:
        return np.nan, np.nan
    with np.errstate(all="ignore"):
        shift = _best_shift(points, plane)
        focal = _residuals(points, plane, shift)[0]
    usable = np.isfinite(focal) and focal > 0 and np.median(points[:, 2] + shift) > 0
    return (float(focal), float(shift)) if usable else (np.nan, np.nan)


def _residuals(points: np.ndarray, plane: np.ndarray, shift: float) -> tuple[float, np.ndarray, np.ndarray]:
    """The best focal length for a shift, the residuals (N, 2) and their derivative by shift (N, 2)."""
    depth = points[:, 2:] + shift
    seen = points[:, :2] / depth
    moved = -seen / depth                                   # d seen / d shift
    size = (seen * seen).sum()
    focal = (seen * plane).sum() / size
    moved_focal = ((moved * plane).sum() - 2 * focal * (moved * seen).sum()) / size
    return focal, focal * seen - plane, moved_focal * seen + focal * moved


def _best_shift(points: np.ndarray, plane: np.ndarray) -> float:
    """In one dimension a damped step is the Gauss-Newton step made shorter, to the radius of trust or to within a tenth of it."""
    shift, radius, first, scale, damping = 0.0, FIRST_RADIUS, True, 0.0, 0.0
    _, residual, slope = _residuals(points, plane, shift)
    cost = (residual * residual).sum()
    for _ in range(MOST_TRIALS):
        gradient, curvature = (slope * residual).sum(), (slope * slope).sum()
        if not cost > 0 or not abs(gradient) > GRADIENT_TOLERANCE * np.sqrt(curvature * cost):
            return shift
        scale = max(scale, np.sqrt(curvature))
        step, damping = _step(gradient, curvature, scale, radius, damping)
        length = scale * abs(step)
        radius, first = (min(radius, length) if first else radius), False
        _, tried, tried_slope = _residuals(points, plane, shift + step)
        tried_cost = (tried * tried).sum()
        near = tried_cost < 100 * cost                      # else, and where it is not a number, the step is far out
        gained = 1 - tried_cost / cost if near else -1.0
        linear, damped = curvature * step * step / cost, damping * length * length / cost
        promised = linear + 2 * damped
        ratio = gained / promised
        if ratio <= 0.25:
            cut = 0.5 if gained >= 0 else 0.5 * (linear + damped) / (linear + damped - 0.5 * gained)
            cut = max(cut, 0.1) if near else 0.1
            radius, damping = cut * min(radius, 10 * length), damping / cut
        elif damping == 0 or ratio >= 0.75:
            radius, damping = 2 * length, damping / 2
        if ratio >= 1e-4:
            shift, residual, slope, cost = shift + step, tried, tried_slope, tried_cost
        settled = abs(gained) <= COST_TOLERANCE and promised <= COST_TOLERANCE and ratio <= 2
        if settled or radius <= STEP_TOLERANCE * scale * abs(shift):
            return shift
    return shift


def _step(gradient: float, curvature: float, scale: float, radius: float, damping: float) -> tuple[float, float]:
    """The step, of length scale * |step|, and its damping; the last step's damping is kept where it serves."""
    whole = scale * abs(gradient) / curvature
    if whole <= 1.1 * radius:
        return -gradient / curvature, 0.0
    exact = (whole / radius - 1) * curvature / scale**2
    damping = min(max(damping, exact), abs(gradient) / (scale * radius))
    if abs(scale * abs(gradient) / (curvature + damping * scale**2) - radius) > 0.1 * radius:
        damping = exact
    return -gradient / (curvature + damping * scale**2), damping


def focal_px(points: np.ndarray, valid: np.ndarray, width: int, height: int) -> float:
    """Focal length in pixels, the same across and down, of a picture of width x height whose principal point is its centre.

    points (64, 64, 3) and valid (64, 64) bool: the rows and columns `sample_rows` of the point map. NaN where it cannot be told, see `focal_and_shift`."""
    plane = view_plane(width, height)[np.ix_(sample_rows(height), sample_rows(width))]
    return focal_and_shift(points[valid], plane[valid])[0] * hypot(width, height) / 2


def one_focal(per_frame_px: np.ndarray) -> tuple[float, float]:
    """One focal length for a shot, in pixels, and its spread, from the frames' own; frames without one (NaN) are passed over.

    The focal length is the median, the spread the median absolute deviation of its logarithm, times 1.4826: about the relative standard deviation of a
    single frame's estimate (0.1 = 10 %), untouched by fewer than half of the frames being wrong (Hampel, The influence curve, 1974). In logarithms, because
    a focal length errs by a factor. The spread is NaN for a single frame: nothing is known of it.

    Raises Body4DError `no_focal` if no frame has one."""
    per_frame_px = np.atleast_1d(np.asarray(per_frame_px, np.float64))
    logs = np.log(per_frame_px[np.isfinite(per_frame_px) & (per_frame_px > 0)])
    if not len(logs):
        raise Body4DError(f"No focal length could be told from {len(per_frame_px)} frames: almost nothing in them has a depth.",
                          "Give --focal-px or --focal-mm.", "no_focal")
    middle = np.median(logs)
    spread = NORMAL_MAD * np.median(np.abs(logs - middle)) if len(logs) > 1 else np.nan
    return float(np.exp(middle)), float(spread)
