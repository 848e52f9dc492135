# SPDX-License-Identifier: Apache-2.0
"""What the networks of the full backend take of memory, at their published sizes, and what follows from it: plans, the least limit, and who is told that it
will be slow. Importing this loads nothing heavy.

Bytes were counted by `scripts/bench_memory.py --count` as the storages that live at once while a network of full size computes (attention as one operation, as
CUDA and CPUs have it), in float32, recover also in bfloat16; they grow with the batch to within 1 %. Libraries take more beside: a process on a CPU took 102 MB
for each crop of 92 counted, 453 MB for SAM 3's backbone of 275, 1379 MB for MoGe-2's picture of 984; `memory` keeps a tenth of what is free for that."""

from math import ceil

from ...errors import Body4DError
from ...events import Notice
from ...memory import KEPT_FREE, Cost

MB = 10**6
MOGE, MOGE_PICTURE = 1300 * MB, 1400 * MB
SAM3, SAM3_WITHOUT_TEXT = 3440 * MB, 2030 * MB
SAM3_PICTURE = 650 * MB  # the detector's look at a picture, which takes more than the backbone's
FOLLOWED, FOLLOWING = 335 * MB, 120 * MB  # each person with a full memory, and whatever their number
TOGETHER = 8  # people who go through the network at once
BODY = {False: 4000 * MB, True: 2300 * MB}  # MHR and its tables with it; by whether the backbone is in half precision
CROP = {(False, False): 93 * MB, (False, True): 190 * MB, (True, False): 49 * MB, (True, True): 102 * MB}  # by that, and by whether hands are looked at
BESIDE = 300 * MB  # what `recover` had on a CPU with two crops: 4.95 GB less the network (3.84), the program (0.46) and what is counted (0.38)
PROGRAM = 600 * MB  # Python, torch and the libraries, where they are in the same memory
TITLES = {"camera": "MoGe-2", "track": "SAM 3", "recover": "SAM 3D Body"}


def tracking(width: int, height: int) -> Cost:
    """People in pictures of that size: logits of one person per pixel; and whatever the number of people, the best logit, who has it, and both made anew."""
    pixels = width * height
    return Cost(FOLLOWED + 8 * pixels, FOLLOWING + 16 * pixels, TOGETHER)


def recovering(width: int, height: int, half: bool, hands: bool) -> Cost:
    """Crops: of each its frame, its mask and what is made of it, with its hands', which come in the same batch; the next batch is put together meanwhile."""
    return Cost(CROP[half, hands] + 2 * 4 * width * height, BESIDE)


def least(device: str, hands: bool) -> dict[str, int]:
    """Bytes that each stage takes at least on a device, whatever the clip's size."""
    half = device.startswith("cuda")
    takes = {"camera": MOGE + MOGE_PICTURE, "track": max(SAM3, SAM3_WITHOUT_TEXT + max(SAM3_PICTURE, FOLLOWING + FOLLOWED)),
             "recover": BODY[half] + BESIDE + CROP[half, hands]}
    return {stage: round((takes[stage] + (PROGRAM if device == "cpu" else 0)) / (1 - KEPT_FREE)) for stage in takes}


def check_limit(limit: int, device: str, hands: bool) -> None:
    """Raises Body4DError `memory_limit` where a network would not fit into what the user allows, before anything is computed."""
    stage, most = max(least(device, hands).items(), key=lambda entry: entry[1])
    if limit < most:
        wanted = ceil(most / 1e8) / 10
        raise Body4DError(f"{limit / 1e9:.2g} GB of memory are too little for the full backend: {TITLES[stage]} takes {wanted:.1f} GB for one person.",
                          f"Set --memory-limit to {wanted:.1f} or more, or leave it out.", "memory_limit")


def slow(stage: str, device: str) -> Notice | None:
    """What to tell of a device that is no fast one."""
    each = {"camera": "every frame that is looked at takes", "track": "every frame takes", "recover": "every person in every frame takes"}[stage]
    if device == "cpu":
        return Notice(stage, "no_gpu", f"There is no GPU here that torch can use: {each} seconds, or longer.")
    if device == "mps":
        return Notice(stage, "slow_gpu", f"On this GPU the networks compute in full precision, and what Metal lacks is computed beside it: {each} seconds.")
    return None
