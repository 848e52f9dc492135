# SPDX-License-Identifier: Apache-2.0
"""The pinhole camera of the clip: focal length and principal point in pixels of the upright frame."""

from math import hypot

import numpy as np

from ..errors import Body4DError
from ..events import Notice, Progress

ASSUMED_DIAGONALS = 0.8  # a phone's or a camcorder's usual wide view; no estimator tried on real footage beat it
FILM_WIDTH_MM = 36.0


class Camera:
    """Focal length from the user, else from the clip's metadata, else assumed as 0.8 x the frame's diagonal and called so.

    `focal_mm` is for a sensor 36 mm long on the frame's longer side, as in Blender. The principal point is the centre of the frame.
    """

    name = "camera"
    version = 1
    needs = ()

    def __init__(self, focal_px: float | None = None, focal_mm: float | None = None):
        self.settings = {"focal_px": focal_px, "focal_mm": focal_mm}

    def run(self, clip, people, take, cursor):
        width, height = clip.width, clip.height
        focal_px, method, note = self.focal(clip)
        if not 0.1 * max(width, height) <= focal_px <= 100 * max(width, height):
            raise Body4DError(f"A focal length of {focal_px:.0f} px is not possible for a frame of {width} x {height} px.",
                              "Give --focal-px in pixels, or --focal-mm for a 36 mm sensor.", "bad_focal")
        if method == "assumed":
            yield Notice(self.name, "focal_assumed", f"The focal length is assumed: {focal_px:.0f} px ({note}). Bodies match the picture, but "
                         "their distance from the camera may be off. Give --focal-px or --focal-mm if you know it.")
        samples = take.samples
        take.write_npz("camera.npz", focal_px=np.full(samples, focal_px, np.float32), method=np.array(method), note=np.array(note),
                       principal_px=np.tile(np.array([width / 2, height / 2], np.float32), (samples, 1)))
        yield Progress(self.name, samples, samples)

    def focal(self, clip) -> tuple[float, str, str]:
        """focal_px, method (user, metadata, assumed) and a note on where it comes from."""
        if self.settings["focal_px"] is not None:
            return float(self.settings["focal_px"]), "user", "given in pixels"
        if self.settings["focal_mm"] is not None:
            return self.settings["focal_mm"] * max(clip.width, clip.height) / FILM_WIDTH_MM, "user", f"given as {self.settings['focal_mm']:g} mm"
        if clip.focal_px:
            return float(clip.focal_px[0]), "metadata", clip.focal_px[1]
        return ASSUMED_DIAGONALS * hypot(clip.width, clip.height), "assumed", f"{ASSUMED_DIAGONALS} x the frame's diagonal"
