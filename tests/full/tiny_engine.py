# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.full.tiny_engine serve`: the engine with a full backend of small random networks, for an add-on to talk to."""

from body4d_engine.backends import BACKENDS
from body4d_engine.serve import serve

from .sam_3d_body_nets import network
from .test_full_pipeline import FRAMES, Tiny
from .fake_sam3 import Actor, World


def write_clip(folder) -> None:
    """Two people as images; the second comes late and is hidden behind the first for two frames."""
    import cv2

    world = World([Actor(lambda frame: (60 + 2 * frame, 20)), Actor(lambda frame: None if frame < 3 or frame in (7, 8) else (160 - 2 * frame, 30))], FRAMES,
                  size=(200, 120))
    folder.mkdir()
    for number in range(FRAMES):
        cv2.imwrite(str(folder / f"{number:04d}.png"), world.read(number))


if __name__ == "__main__":
    BACKENDS["full"] = Tiny(network())
    raise SystemExit(serve())
