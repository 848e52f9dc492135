# SPDX-License-Identifier: Apache-2.0
"""Which heels and toes stand on something that does not move: small arrays over a whole person, the same for every window and chunk."""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import convolve1d

from ..camera_motion import Turns
from ..models.anny.pose import KEYPOINTS, LEFT_HIP, RIGHT_HIP
from ..runs import runs
from . import observations
from .observations import BLOCK, Survey

POINTS = ("left_heel", "left_big_toe", "right_heel", "right_big_toe")
INDEX = np.array([KEYPOINTS.index(name) for name in POINTS])
REACH_S = 0.04  # standard deviation of the time over which a speed is measured
STILL_M_S = 0.5  # a point that moves slower than this is more likely to stand
DEPTH_SHARE = 0.2  # of the speed in space, which depth makes noisy, beside that in the image
SLOWEST_M_S = 0.1  # below it lies only noise
MOMENT_S = 0.05  # so long a look at a speed counts as one observation
ALOFT, ALOFT_M = 0.77, 0.3  # a foot that far from the hips, within 40 degrees of straight above them, stands on nothing
DWELL_S = 0.4  # how long a foot stands or swings on average
LIKELY, SHORTEST_S = 0.5, 0.1  # a contact
SAME_PLACE_M = 0.08  # across the line of sight, about the middle of the contact
ROLL_BEFORE_S, ROLL_AFTER_S, ROLL_M = 0.25, 0.2, 0.12  # how much of its rest and of its way says when a rolling foot left
ROLL_DOUBT = 4.0  # per second: the log odds against a foot having left that much earlier
STRAYS_M = 0.015  # standard deviation of a landmark
LEAST_TRUST = 0.3  # of a landmark that says anything
LONGEST_DOUBT_S = 0.25  # nothing is claimed of a point that is not seen for longer


@dataclass
class Evidence:
    """A person's heels and toes over T samples. rays (T, 4, 3): directions of length 1, in camera axes turned back to those of the shot's first
    sample; points (T, 4, 3) metres, from `recover`, in the same axes, and hips (T, 3), the middle between them; trust (T, 4) 0..1; distance (T,) metres
    from the camera."""

    rays: np.ndarray
    points: np.ndarray
    hips: np.ndarray
    trust: np.ndarray
    distance: np.ndarray


def gather(take, person: int, known: Survey, camera: Turns) -> Evidence:
    """What the tracked landmarks and `recover` say. Where the camera's motion is not known, nothing is claimed."""
    group, count = f"people/{person}", take.samples
    out = Evidence(np.zeros((count, 4, 3)), np.zeros((count, 4, 3)), np.zeros((count, 3)), np.zeros((count, 4)), np.ones(count))
    keypoints, pixels, root = (take.by_sample(group, name, "recover") for name in ("keypoints_m", "keypoints_px", "root"))
    for begin in range(*known.span, BLOCK):
        samples = np.arange(begin, min(begin + BLOCK, known.span[1]))
        seen = observations.read(take, person, samples, known)
        back = camera.rotation[samples].transpose(0, 2, 1)[:, None]
        xy = (seen.xy[:, INDEX] - seen.centre[:, None]) / seen.focal[:, None, None]
        rays = np.concatenate([xy, np.ones((len(xy), 4, 1))], 2)
        out.rays[samples] = (back @ (rays / np.linalg.norm(rays, axis=2, keepdims=True))[..., None])[..., 0]
        body = np.asarray(keypoints[samples]).astype(np.float64) + np.asarray(root[samples])[:, None]
        body = (back @ body[..., None])[..., 0]
        out.points[samples], out.hips[samples] = body[:, INDEX], body[:, [LEFT_HIP, RIGHT_HIP]].mean(1)
        trusted = np.minimum(np.asarray(pixels[samples])[:, INDEX, 2], seen.visibility[:, INDEX]) * (seen.seen * seen.weight * camera.known[samples])[:, None]
        out.trust[samples] = np.where(trusted < LEAST_TRUST, 0, trusted)
        out.distance[samples] = np.linalg.norm(root[samples], axis=1)
    return out


def probabilities(evidence: Evidence, spacing_s: float, stretches: list[tuple[int, int]]) -> np.ndarray:
    """(T, 4) float32: how likely each point stands; 0 outside the stretches and where it was not seen for long."""
    out = np.zeros(evidence.trust.shape, np.float32)
    for begin, stop in stretches:
        part = slice(begin, stop)
        trust = evidence.trust[part]
        speed = np.hypot(slopes(evidence.rays[part], trust, spacing_s) * evidence.distance[part, None],
                         DEPTH_SHARE * slopes(evidence.points[part], trust, spacing_s))
        odds = np.clip(-2 * np.log(np.maximum(speed, SLOWEST_M_S) / STILL_M_S), -3, 2)
        odds[_aloft(evidence.points[part] - evidence.hips[part, None])] = -3
        odds *= trust * spacing_s / MOMENT_S
        out[part] = smoothed(odds, min(0.1, spacing_s / DWELL_S))
        for point in range(trust.shape[1]):
            for first, last in runs(trust[:, point] == 0):
                if first == 0 or last == stop - begin or (last - first) * spacing_s > LONGEST_DOUBT_S:
                    out[begin + first : begin + last, point] = 0
    return out


def _aloft(legs: np.ndarray) -> np.ndarray:
    """(N, 4) bool: points of feet that hang over the hips, as in a handstand: there is nothing there to stand on. legs (N, 4, 3): from the hips to each.

    Up is where the picture's top is. A camera that looks down by less than 50 degrees takes nobody who sits or lies for this.
    """
    length = np.linalg.norm(legs, axis=-1)
    return (-legs[..., 1] > ALOFT * length) & (length > ALOFT_M)


def slopes(values: np.ndarray, trust: np.ndarray, spacing_s: float) -> np.ndarray:
    """(N, P) speed of values (N, P, 3): slope of a weighted straight line through the neighbourhood, so that ends and gaps do no harm."""
    reach = REACH_S / spacing_s
    ticks = np.arange(-int(np.ceil(3 * reach)), int(np.ceil(3 * reach)) + 1)
    bell = np.exp(-0.5 * (ticks / reach) ** 2)

    def gathered(kernel: np.ndarray, array: np.ndarray) -> np.ndarray:
        return convolve1d(array, kernel[::-1], axis=0, mode="constant")

    weight = trust + 1e-9
    total, first, second = (gathered(bell * ticks**power, weight)[..., None] for power in range(3))
    value = gathered(bell, weight[..., None] * values)
    lever = gathered(bell * ticks, weight[..., None] * values)
    spread = total * second - first**2
    return np.linalg.norm((total * lever - first * value) / np.maximum(spread, 1e-12 * total**2 + 1e-30), axis=-1) / spacing_s


def smoothed(odds: np.ndarray, change: float) -> np.ndarray:
    """(N, P) posterior of one of two states with log odds (N, P) per sample and this probability of a change between samples
    (forward-backward; Rabiner 1989, III.A)."""
    ratio = np.exp(odds)

    def passed(order) -> np.ndarray:
        """What all samples before (in this order) say, as a probability."""
        out, now = np.empty_like(odds), np.full(odds.shape[1], 0.5)
        for i in order:
            out[i] = now = now * (1 - change) + (1 - now) * change
            now = now * ratio[i] / (now * ratio[i] + 1 - now)
        return out

    before, after = passed(range(len(odds))), passed(range(len(odds) - 1, -1, -1))
    yes, no = before * after * ratio, (1 - before) * (1 - after)
    return yes / (yes + no)


def stands(probability: np.ndarray, evidence: Evidence, spacing_s: float, stretches: list[tuple[int, int]]) -> np.ndarray:
    """(T, 4) int32: the number of the contact, from 1, that each point is in; 0 for none. A contact lasts for SHORTEST_S at least, and whoever is
    slow but gets somewhere shuffles: as long as it has not, it stands. Where one point of a foot comes or goes while the other one stands, the foot
    rolls: see `_leaves`."""
    out, number = np.zeros(probability.shape, np.int32), 0
    least = int(np.ceil(SHORTEST_S / spacing_s - 1e-9))
    for begin, stop in stretches:
        for point in range(probability.shape[1]):
            for first, last in runs(probability[begin:stop, point] > LIKELY):
                part = slice(begin + first, begin + last)
                path = evidence.rays[part, point] * np.median(evidence.distance[part])
                for a, b in _steady(path, evidence.trust[part, point] > 0, least, int(LONGEST_DOUBT_S / spacing_s)):
                    number += 1
                    out[begin + first + a : begin + first + b, point] = number
    return _rolled(out, evidence, spacing_s, stretches)


def _rolled(contacts: np.ndarray, evidence: Evidence, spacing_s: float, stretches: list[tuple[int, int]]) -> np.ndarray:
    """Contacts (T, 4) without the samples in which a foot already rolls off over its other point, or still rolls on to the ground about it."""
    out, least, count = contacts.copy(), int(np.ceil(SHORTEST_S / spacing_s - 1e-9)), len(contacts)
    for low, high in stretches:
        for point in range(contacts.shape[1]):
            other = contacts[:, point ^ 1] > 0
            for begin, stop in ((low + a, low + b) for a, b in runs(contacts[low:high, point])):
                path, trust = evidence.rays[:, point] * np.median(evidence.distance[begin:stop]), evidence.trust[:, point]
                last = _leaves(path, trust, begin, stop, high, spacing_s) if other[stop - 1] else stop
                first = count - _leaves(path[::-1], trust[::-1], count - stop, count - begin, count - low, spacing_s) if other[begin] else begin
                if last - first >= least:
                    out[begin:first, point] = out[last:stop, point] = 0
    return out


def _leaves(path: np.ndarray, trust: np.ndarray, begin: int, stop: int, end: int, spacing_s: float) -> int:
    """Where a point that was found to stand in [begin, stop) begins to leave: at `stop` or earlier. path (T, 3) metres, trust (T,); end: of what is known.

    A rolling foot begins to turn from rest, so a speed tells of it late. Its way from rest is that of a constant acceleration: of all moments at which
    this may have begun, the likeliest is taken (least squares).
    """
    place = np.median(path[begin:stop][trust[begin:stop] > 0], axis=0)
    after = stop
    while after < min(end, stop + round(ROLL_AFTER_S / spacing_s)) and trust[after] > 0 and np.linalg.norm(path[after] - place) < ROLL_M:
        after += 1
    before = max(begin, stop - round(ROLL_BEFORE_S / spacing_s))
    if after - stop < 2 or after == end:
        return stop
    points, weight = path[before:after], trust[before:after] / trust[before:after].sum()
    start = np.arange(before + 1, stop + 0.1, 0.5)
    way = np.maximum(np.arange(before, after) - start[:, None], 0) ** 2
    way = way - (way @ weight)[:, None]
    points = points - weight @ points
    explained = ((way * weight @ points) ** 2).sum(1) / (way**2 @ weight)
    evidence = explained * trust[before:after].sum() * spacing_s / MOMENT_S / (2 * STRAYS_M**2) - ROLL_DOUBT * (stop - start) * spacing_s
    return min(stop, max(begin, int(start[evidence.argmax()]) + 1))


def _steady(path: np.ndarray, seen: np.ndarray, least: int, doubt: int) -> list[tuple[int, int]]:
    """[begin, stop) of the parts of a path (N, 3), `least` samples long or more, that stay around one place. What is not seen in between goes along, and
    so do up to `doubt` samples that leave the place and are back: feet that are mistaken for each other do that."""
    if not seen.any():
        return []
    first, last = int(seen.argmax()), len(seen) - int(seen[::-1].argmax())
    if last - first < least:
        return []
    near = (np.linalg.norm(path - np.median(path[seen], axis=0), axis=1) < SAME_PLACE_M) | ~seen
    if not near.any():
        return []
    for begin, stop in runs(~near):
        near[begin:stop] = begin > 0 and stop < len(near) and stop - begin <= doubt
    if near.all():
        return [(first, last)]
    return sorted((a + c, a + d) for part in (near, ~near) for a, b in runs(part) for c, d in _steady(path[a:b], seen[a:b], least, doubt))
