# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera of the clip: one focal length per shot, measured by MoGe-2 where nobody knows it."""

import math

import numpy as np

from ...events import Notice, Progress
from ...memory import release
from ...models.moge.focal import one_focal
from ..camera import Camera as Given
from .costs import slow

FRAMES = 8  # per shot
WIDE = 0.15  # a relative spread of the frames' focal lengths above which a shot's own is called uncertain
WEIGHTS = "moge-2-vitl-normal"


class Camera(Given):
    """Focal length from the user, else from the clip's metadata, exactly as `stages.camera` takes them; else the median of what MoGe-2 says of up to 8
    frames of each shot. A shot of which it can say nothing (black, or without any depth) has that of the others; where this is so of all, it is assumed
    and called so.

    The cursor holds what has been measured: killed and run again it goes on with the next frame.
    """

    version = 1
    needs = ("prepare",)

    def __init__(self, focal_px: float | None = None, focal_mm: float | None = None, folder=None, limit: int | None = None,
                 networks=None, models: str = "ours"):
        """folder: where MoGe-2's weights are. limit: bytes of memory that the user allows. `networks()` returns the network in place of the real one.
        models: whose code runs it, see `settings`."""
        super().__init__(focal_px, focal_mm)
        self.settings |= {"model": "moge-2", "models": models, "frames": FRAMES}
        self._networks = networks or (lambda: _network(folder, limit, models))

    def run(self, clip, people, take, cursor):
        if self.focal(clip)[1] != "assumed":
            yield from super().run(clip, people, take, cursor)
            return
        starts = np.searchsorted(np.array(clip.frames), clip.shots)
        bounds = sorted({0, take.samples, *(int(start) for start in starts if 0 < start < take.samples)})
        shots = [range(first, stop) for first, stop in zip(bounds, bounds[1:])]
        measured = yield from self._measure(clip, take, shots, (cursor or {"measured": []})["measured"])
        per_shot = [_of_shot(values, clip) for values in measured]
        told = [focal for focal, _ in per_shot if math.isfinite(focal)]
        if not told:
            yield Notice(self.name, "focal_not_seen", "No focal length could be told from the pictures: almost nothing in them has a depth.")
            yield from super().run(clip, people, take, cursor)
            return
        common, note = one_focal(np.array(told))[0], _note(per_shot)
        yield Notice(self.name, "focal_estimated", f"The focal length is estimated: {_pixels(told)} ({note}). Give --focal-px or --focal-mm if you know it.")
        yield from self._doubts(take.frames, shots, per_shot, common)
        focal = np.concatenate([np.full(len(shot), own if math.isfinite(own) else common, np.float32) for shot, (own, _) in zip(shots, per_shot)])
        take.write_npz("camera.npz", focal_px=focal, method=np.array("estimated"), note=np.array(note),
                       principal_px=np.tile(np.array([clip.width / 2, clip.height / 2], np.float32), (take.samples, 1)))
        yield Progress(self.name, take.samples, take.samples)

    def _measure(self, clip, take, shots: list[range], measured: list[list]):
        """The focal length that each frame that is looked at says, in px, None where it says none; by shot."""
        network, wanted = None, [_spread(shot) for shot in shots]
        done, total = sum(map(len, measured)), sum(map(len, wanted))
        try:
            for number, samples in enumerate(wanted):
                if number == len(measured):
                    measured.append([])
                for sample in samples[len(measured[number]) :]:
                    if network is None:
                        network = self._networks()
                        told = slow(self.name, str(network.device))
                        if told and not done:
                            yield told
                    found = float(network.focal(clip.read(take.frames[sample])[None])[0][0])
                    measured[number].append(found if math.isfinite(found) else None)
                    done += 1
                    take.commit({"measured": measured})
                    yield Progress(self.name, done * take.samples // total, take.samples)
        finally:
            del network
            release()
        return measured

    def _doubts(self, frames: range, shots: list[range], per_shot: list[tuple[float, float]], common: float):
        """A notice for each shot whose focal length is uncertain."""
        for shot, (focal, spread) in zip(shots, per_shot):
            first, last = frames[shot[0]], frames[shot[-1]]
            if not math.isfinite(focal):
                yield Notice(self.name, "focal_of_other_shots", f"No focal length could be told from frames {first} to {last}: that of the other shots is "
                             f"used, {common:.0f} px.", frame=first, last_frame=last)
            elif spread > WIDE:
                yield Notice(self.name, "focal_uncertain", f"The focal length of frames {first} to {last} is uncertain: {focal:.0f} px, give or take "
                             f"{spread:.0%}. Distances from the camera may be off.", frame=first, last_frame=last)


def _spread(shot: range) -> list[int]:
    """Up to FRAMES samples of a shot, each in the middle of its part."""
    return sorted({shot[(2 * k + 1) * len(shot) // (2 * FRAMES)] for k in range(FRAMES)})


def _of_shot(values: list, clip) -> tuple[float, float]:
    """One focal length in px and its relative spread; NaN where none can be told. What no lens has is not believed."""
    longer = max(clip.width, clip.height)
    possible = np.array([value for value in values if value is not None and 0.1 * longer <= value <= 100 * longer])
    return one_focal(possible) if len(possible) else (math.nan, math.nan)


def _pixels(told: list[float]) -> str:
    least, most = min(told), max(told)
    return f"{least:.0f} px" if f"{least:.0f}" == f"{most:.0f}" else f"{least:.0f} to {most:.0f} px"


def _note(per_shot: list[tuple[float, float]]) -> str:
    spreads = [spread for _, spread in per_shot if math.isfinite(spread)]
    of = f"up to {FRAMES} frames" + (f" of each of {len(per_shot)} shots" if len(per_shot) > 1 else "")
    return f"MoGe-2 on {of}, spread " + (f"{np.median(spreads):.1%}" + (f", at most {max(spreads):.1%}" if len(spreads) > 1 else "") if spreads else "unknown")


def _network(folder, limit: int | None, models: str):
    from ...memory import computing_device
    from ...weights.places import locate

    device = computing_device(limit)
    if models == "official":
        from ...models.official.moge import MoGe
    else:
        from ...models.moge.model import MoGe
    return MoGe.load(locate(WEIGHTS, folder).path("model.pt"), device)
