# SPDX-License-Identifier: Apache-2.0
"""From presentation times to a constant-rate grid: which picture is frame i, and at what rate."""

from fractions import Fraction

import numpy as np

STANDARD_RATES = tuple(sorted(
    [Fraction(n) for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 72, 75, 90, 100, 120, 144, 200, 240, 480, 960)]
    + [Fraction(25, 2)] + [Fraction(1000 * n, 1001) for n in (15, 24, 30, 48, 60, 120, 240)]))


def snap_rate(rate: Fraction) -> Fraction:
    """The standard rate within 1 part in 5,000 of `rate` (frames per second), else `rate` itself in a short form."""
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    if abs(nearest - rate) * 5000 <= rate:
        return nearest
    return Fraction(rate).limit_denominator(10_000)


def frame_grid(times: np.ndarray, time_base: Fraction, declared: list, last_duration: int = 0) -> tuple[Fraction, np.ndarray, bool]:
    """Lay the pictures of a clip on a constant-rate grid.

    times: (P,) int64 presentation times in ticks of `time_base` seconds, strictly increasing. declared: rates the container
    names, best first, None where it names none. last_duration: ticks the last picture stays on screen, 0 if unknown.

    Returns (fps, shown, variable): shown (N,) int32 is the picture on screen at each frame; where the rate is constant it is
    0..P-1. `variable` is True where the pictures do not lie on any regular grid to within the rounding of their own clock (a
    container that counts in milliseconds is not variable).

    A picture belongs to the frame nearest to its time, as encoders do when they make the rate constant: jitter of less
    than half a frame then neither drops nor doubles a picture.
    """
    count = len(times)
    seconds = (times - times[0]).astype(np.float64) * float(time_base)
    rates = [snap_rate(Fraction(rate)) for rate in declared if rate]
    if count == 1:
        return (rates[0] if rates else Fraction(30)), np.zeros(1, np.int32), False
    mean_rate = Fraction(count - 1) / (int(times[-1] - times[0]) * time_base)
    for rate in [*rates, *STANDARD_RATES, snap_rate(mean_rate), mean_rate.limit_denominator(1_000_000)]:
        # One tick of rounding at either end, but never so much that a picture could be taken for its neighbour.
        tolerance = min(max(1.01 * float(time_base), 5e-4), 0.25 / float(rate))
        if abs(float(mean_rate / rate) - 1) * (count - 1) < 0.5 and np.abs(seconds - np.arange(count) / float(rate)).max() <= tolerance:
            return rate, np.arange(count, dtype=np.int32), False
    rate = _rate_that_keeps_pictures(seconds)
    slots = np.floor(seconds * float(rate) + 0.5).astype(np.int64)
    end = max(slots[-1] + 1, int((seconds[-1] + last_duration * float(time_base)) * float(rate) + 0.5))
    shown = (np.searchsorted(slots, np.arange(end), side="right") - 1).astype(np.int32)
    return rate, shown, True


def _rate_that_keeps_pictures(seconds: np.ndarray) -> Fraction:
    """The lowest standard rate at which at most 1 % of the pictures would share a frame with another and be lost; of rates
    that differ by up to a quarter (8 and 10, 24 and 25 and 30, 29.97 and 30) the one whose frames lie nearest to the pictures."""
    def off_grid(rate: Fraction) -> float:
        frames = seconds * float(rate)
        return float(np.abs(frames - np.floor(frames + 0.5)).mean())

    def keeps(rate: Fraction) -> bool:
        return np.count_nonzero(np.diff(np.floor(seconds * float(rate) + 0.5)) == 0) <= 0.01 * len(seconds)

    lowest = next((rate for rate in STANDARD_RATES if keeps(rate)), STANDARD_RATES[-1])
    return min((rate for rate in STANDARD_RATES if lowest <= rate <= lowest * Fraction(5, 4)), key=off_grid)
