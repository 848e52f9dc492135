# SPDX-License-Identifier: Apache-2.0
"""SAM 3 and MoGe-2 with random weights."""

import time

import torch

from .bodies import HEIGHT, WIDTH, pictures
from .device import peak, seconds, synchronise

UNTIL_FULL = 10  # frames until the memory of what was seen is as long as it gets


def track(args) -> dict:
    """People, each shown by a box, followed at 1080p."""
    from body4d_engine.models.sam3.model import Sam3
    from body4d_engine.models.sam3.tracker import Tracker

    shown, out = pictures(), {}
    with peak(args.device) as whole:
        sam3 = Sam3.build(args.size, device=args.device, dtype=torch.bfloat16 if args.device.startswith("cuda") else torch.float32)
        for people in (5, 1):
            tracker = Tracker(sam3)
            tracker.start(WIDTH, HEIGHT)
            for person in range(people):
                tracker.prompt(0, person + 1, box=(190 + 330 * person, 180, 410 + 330 * person, 940))
            with torch.inference_mode():
                for frame in range(UNTIL_FULL):
                    tracker.step(frame, shown[frame % 4])
                synchronise(args.device)
                started = time.perf_counter()
                for frame in range(UNTIL_FULL, UNTIL_FULL + args.frames):
                    tracker.step(frame, shown[frame % 4])
                synchronise(args.device)
            out[f"{people} people"] = {"frames_per_s": args.frames / (time.perf_counter() - started)}
    return out | {"peak_gib": whole["gib"]}


def camera(args) -> dict:
    """A look at one frame at 1080p, as it is taken of several frames of a shot."""
    from body4d_engine.models.moge.model import MoGe

    torch.manual_seed(0)
    picture = pictures(1)[0][None]
    with peak(args.device) as whole:
        network = MoGe.build("vitl" if args.size == "full" else "tiny").eval().to(args.device)
        network.focal(picture)
        taken = seconds(lambda: network.focal(picture), args.device)
    return {"frame_s": taken, "peak_gib": whole["gib"]}
