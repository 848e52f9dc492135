# SPDX-License-Identifier: Apache-2.0
"""Timelines as shapes: what `drawing` writes as SVG and as PNG alike.

A shape lies in the unit square of its panel, x over all samples and y upwards. Takes longer than BINS samples are drawn by bins: a curve as the
range from the lowest to the highest of each bin and a line through the means, so that a spike of a single sample stays visible.
"""

from dataclasses import dataclass, field
from math import ceil, floor, log10

import numpy as np

from ...runs import runs
from ...take import State
from .content import Curve, PersonReport

BINS = 600
STATE_HEIGHT = {State.VISIBLE: 1.0, State.OCCLUDED: 0.62, State.FILLED: 0.3}  # told apart without colours
SEEN_FIRST = (State.ABSENT, State.FILLED, State.OCCLUDED, State.VISIBLE)  # of a bin's states the first is shown
FOOT_LANES = ("left heel", "left toe", "right heel", "right toe")
READ_LANES = ("left hand", "right hand", "face")


@dataclass(frozen=True)
class Shape:
    """points (n, 2) for a line or an area (closed); for boxes (n, 4) x0, y0, x1, y1. role: what it stands for."""

    kind: str
    role: str
    points: np.ndarray


@dataclass(frozen=True)
class Panel:
    """One timeline. ticks: (y, text) of the axis; about: what there is to say in short; height in px of a page."""

    key: str
    title: str
    unit: str
    meaning: str
    about: str
    height: int
    shapes: list[Shape]
    ticks: list[tuple[float, str]] = field(default_factory=list)


class Bins:
    """Samples in at most BINS bins of nearly the same size."""

    def __init__(self, samples: int):
        self.samples, self.count = samples, min(samples, BINS)
        self.edges = np.arange(self.count + 1) * samples // self.count
        self.x = self.edges / samples  # of the bins' borders
        self.middle = (self.x[:-1] + self.x[1:]) / 2

    def low(self, values: np.ndarray) -> np.ndarray:
        return np.fmin.reduceat(values, self.edges[:-1])

    def high(self, values: np.ndarray) -> np.ndarray:
        return np.fmax.reduceat(values, self.edges[:-1])

    def mean(self, values: np.ndarray) -> np.ndarray:
        known = np.isfinite(values)
        count = np.add.reduceat(known.astype(float), self.edges[:-1])
        return np.where(count > 0, np.add.reduceat(np.where(known, values, 0.0), self.edges[:-1]) / np.maximum(count, 1), np.nan)

    def any(self, flags: np.ndarray) -> np.ndarray:
        return np.logical_or.reduceat(flags, self.edges[:-1])

    def state(self, state: np.ndarray) -> np.ndarray:
        """(count,) the least seen of each bin; absent only where nobody is there all the time, unless bins are samples."""
        rank = np.array([SEEN_FIRST.index(State(s)) for s in range(len(State))])[state]
        there = np.where(rank == 0, len(SEEN_FIRST), rank)
        worst = np.minimum.reduceat(there, self.edges[:-1])
        return np.array([int(s) for s in SEEN_FIRST] + [int(State.ABSENT)])[worst]

    def boxes(self, flags: np.ndarray, y0: float, y1: float) -> np.ndarray:
        """(n, 4) of the runs of bins for which a flag is set."""
        return np.array([(self.x[begin], y0, self.x[stop], y1) for begin, stop in runs(flags)], np.float64).reshape(-1, 4)


def panels(person: PersonReport, notices: list[tuple[int, int]], frames: range) -> list[Panel]:
    """A person's timelines. notices: the samples [begin, stop) that something was said about."""
    bins = Bins(len(person.state))
    found = [_state(person, notices, bins)]
    found += [_curve(curve, bins, frames) for curve in person.curves]
    found += [_contact(person.contact, bins)] if person.contact is not None else []
    return found + ([_read(person.read, int((person.state != State.ABSENT).sum()), bins)] if person.read is not None else [])


def ruler(frames: range, most: int = 8) -> list[tuple[float, int]]:
    """(x, clip frame) of round frames to label."""
    span = max(frames[-1] - frames[0], 1)
    step = next(s * 10**k for k in range(9) for s in (1, 2, 5) if span / (s * 10**k) <= most)
    first = -(-frames[0] // step) * step
    return [(((frame - frames.start) / frames.step + 0.5) / len(frames), frame) for frame in range(first, frames[-1] + 1, step)]


def _state(person: PersonReport, notices, bins: Bins) -> Panel:
    state = bins.state(person.state)
    shapes = [Shape("boxes", f"state-{kind.name.lower()}", bins.boxes(state == kind, 0, 0.72 * tall)) for kind, tall in STATE_HEIGHT.items()]
    shapes.append(Shape("boxes", "doubt", bins.boxes(bins.any(person.doubtful()), 0.76, 0.86)))
    said = np.zeros(len(person.state), bool)
    for begin, stop in notices:
        said[begin:stop] = True
    shapes.append(Shape("boxes", "event", bins.boxes(bins.any(said), 0.9, 1)))
    counts = ", ".join(f"{kind.name.lower()} {count}" for kind, count in person.counts().items() if count)
    return Panel("state", "State", "", "Full height: visible. Two thirds: occluded. One third: filled. Nothing: absent. Thin lines above: doubtful frames, "
                 "and at the top those that an event is about.", counts, 44, [s for s in shapes if len(s.points)])


def _curve(curve: Curve, bins: Bins, frames: range) -> Panel:
    known = curve.values[np.isfinite(curve.values)]
    at = int(np.nanargmin(curve.values) if curve.key == "confidence" else np.nanargmax(curve.values))
    extreme = f"{'lowest' if curve.key == 'confidence' else 'highest'} {number_text(float(curve.values[at]))} at frame {frames[at]}"
    top = curve.top or nice(min(known.max() * 1.05, max(3 * np.percentile(known, 95), 1.3 * curve.limit)))
    mean, low, high = (part(curve.values) / top for part in (bins.mean, bins.low, bins.high))
    shapes = [] if bins.count == bins.samples else [Shape("area", "range", np.clip(area, 0, 1)) for area in _areas(bins.middle, low, high)]
    shapes += [Shape("line", "line", np.clip(line, 0, 1)) for line in _lines(bins, mean)]
    shapes.append(Shape("boxes", "over", bins.boxes(high > 1, 0.955, 1)))
    if curve.limit < top:
        shapes.insert(0, Shape("line", "limit", np.array([(0, curve.limit / top), (1, curve.limit / top)])))
    return Panel(curve.key, curve.title, unit_text(curve.unit), curve.meaning, f"mean {number_text(float(known.mean()))}, {extreme}", 64,
                 [s for s in shapes if len(s.points)], [(0, "0"), (1, number_text(top))])


def _lines(bins: Bins, values: np.ndarray) -> list[np.ndarray]:
    """Polylines (n, 2) through what is known; a lone one lasts as long as its bin."""
    lines = []
    for begin, stop in runs(np.isfinite(values)):
        if stop - begin == 1:
            lines.append(np.array([(bins.x[begin], values[begin]), (bins.x[stop], values[begin])]))
        else:
            lines.append(np.column_stack([bins.middle[begin:stop], values[begin:stop]]))
    return lines


def _areas(x: np.ndarray, low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
    return [np.vstack([np.column_stack([x[begin:stop], high[begin:stop]]), np.column_stack([x[begin:stop], low[begin:stop]])[::-1]])
            for begin, stop in runs(np.isfinite(low)) if stop - begin > 1]


def _contact(contact: np.ndarray, bins: Bins) -> Panel:
    shares = [f"{side} foot {100 * contact[:, lanes].any(1).mean():.0f} %" for side, lanes in (("left", slice(0, 2)), ("right", slice(2, 4)))]
    return Panel("contact", "Contact", "", "When heel and toe stand on something that does not move, from top to bottom: " + ", ".join(FOOT_LANES) + ".",
                 "down: " + ", ".join(shares), 56, _lanes(contact, FOOT_LANES, bins))


def _read(read: np.ndarray, there: int, bins: Bins) -> Panel:
    shares = [f"{name} {100 * flags.sum() / max(there, 1):.0f} %" for name, flags in zip(READ_LANES, read.T, strict=True)]
    return Panel("read", "Hands and face", "", "When they were large and clear enough to be read, from top to bottom: " + ", ".join(READ_LANES)
                 + ". Gaps of a moment are bridged; elsewhere fingers are relaxed, and the head follows ears, eyes and nose.", "read: " + ", ".join(shares), 42,
                 _lanes(read, READ_LANES, bins))


def _lanes(flags: np.ndarray, names: tuple[str, ...], bins: Bins) -> list[Shape]:
    """Boxes in one lane for each column of flags (T, lanes), coloured by the first word of its name."""
    tall = 1 / len(names)
    shapes = [Shape("boxes", name.split()[0], bins.boxes(bins.any(flags[:, lane]), 1 - (lane + 0.88) * tall, 1 - (lane + 0.12) * tall))
              for lane, name in enumerate(names)]
    return [shape for shape in shapes if len(shape.points)]


def nice(value: float) -> float:
    """The next of 1, 1.5, 2, 3, 5, 7.5 times a power of ten."""
    if not value > 0:
        return 1.0
    power = 10.0 ** floor(log10(value))
    return next((power * step for step in (1, 1.5, 2, 3, 5, 7.5) if power * step >= value), power * 10)


def number_text(value: float) -> str:
    """Three digits that say something."""
    if not np.isfinite(value):
        return "–"
    if abs(value) >= 999.5:
        return f"{value:,.0f}".replace(",", "\u202f")
    digits = 2 - floor(log10(abs(value))) if abs(value) >= 1e-3 else 3
    return f"{value:.{min(max(digits, 0), 4)}f}".rstrip("0").rstrip(".") if digits > 0 and value else f"{value:.0f}"


def unit_text(unit: str) -> str:
    """Exponents as a person writes them."""
    return unit.replace("^2", "²").replace("^3", "³")


def rounded(value: float) -> float | None:
    """For JSON: three digits, None for NaN."""
    return None if not np.isfinite(value) else float(f"{value:.3g}") if abs(value) < 1000 else ceil(value)
