# SPDX-License-Identifier: Apache-2.0
"""How fast the full backend's networks are, and how much memory they take, with random weights of full size: python scripts/bench_full.py --json OUT.json

Needs torch and transformers, this checkout, and no network. On a GPU the published sizes are measured; without one tiny ones are (`--size full` overrules),
as deep as the published decoder: their times say nothing, their counts of operators and of MHR evaluations do."""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from body4d_engine.models.mhr import stand_in  # noqa: E402
from body4d_engine.models.sam_3d_body.config import CONFIGS, KEYPOINTS  # noqa: E402
from body4d_engine.models.sam_3d_body.crops import CropInput  # noqa: E402
from body4d_engine.models.sam_3d_body.figure import Figure  # noqa: E402
from body4d_engine.models.sam_3d_body.inference import Sam3dBody  # noqa: E402
from body4d_engine.models.sam_3d_body.stream import Stream  # noqa: E402

WIDTH, HEIGHT, FOCAL = 1920, 1080, 1700.0
VERTICES_PER_KEYPOINT = 8
PUBLISHED = {"person_frame_s": {"5 people": 0.39, "1 person": 0.70}, "track_frames_per_s": 2.9, "machine": "one H800, SAM-Body4D's README"}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--json", type=Path, metavar="FILE")
    options.add_argument("--size", choices=("full", "tiny"))
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--batch", type=int, default=32, help="crops at once")
    options.add_argument("--frames", type=int, default=24, help="frames of the measured runs")
    options.add_argument("--parts", default="recover,track,camera")
    args = options.parse_args()
    size = args.size or ("full" if args.device.startswith("cuda") else "tiny")
    result = {"machine": machine(args.device), "size": size, "batch": args.batch, "frames": args.frames, "published": PUBLISHED}
    parts = {"recover": recover, "track": track, "camera": camera}
    for name in args.parts.split(","):
        started = time.perf_counter()
        result[name] = parts[name](size, args)
        result[name]["bench_s"] = round(time.perf_counter() - started, 1)
        print(name, json.dumps(result[name], indent=1), flush=True)
        if args.json:
            args.json.write_text(json.dumps(result, indent=1))


def machine(device: str) -> dict:
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else platform.processor() or platform.machine()
    return {"device": name, "torch": torch.__version__, "python": platform.python_version(), "threads": torch.get_num_threads()}


# -- recover --------------------------------------------------------------------------------------------------------------------------------------------------


def recover(size: str, args) -> dict:
    network = body_network(size, args.device)
    figure = Figure(network)
    pictures = [np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for seed in range(4)]
    out: dict = {"parameters": sum(value.numel() for value in network.parameters())}
    for mode in ("body", "full"):
        for people in (5, 1):
            stream(network, figure, mode, args.batch, pictures, people, max(2, 2 * args.batch // people))  # warm
            reset_peak(args.device)
            seconds, count = stream(network, figure, mode, args.batch, pictures, people, args.frames if people == 5 else 2 * args.frames)
            out[f"{mode}, {people} people"] = {"person_frame_s": seconds / count, "person_frames": count, "peak_gib": peak_gib(args.device)}
        out[f"{mode}, per batch of {args.batch}"] = counts(network, figure, mode, args, pictures)
    return out


def body_network(size: str, device: str) -> Sam3dBody:
    """A random network with bodies in front of the camera and keypoints on mesh and joints, so that every branch is gone through."""
    config = CONFIGS["dinov3"] if size == "full" else replace(CONFIGS["tiny"], layers=CONFIGS["dinov3"].layers)
    torch.manual_seed(0)
    network = Sam3dBody.build(config, stand_in.mhr(config.vertices))
    for branch in (network.body, network.hand):
        head = branch.pose_head
        branch.initial_camera.data.copy_(torch.tensor([-0.9 if branch is network.body else -0.06, 0.0, 0.0]))
        head.left_hand.copy_(torch.arange(68, 95))
        head.right_hand.copy_(torch.arange(95, 122))
        for row in head.keypoint_mapping[:KEYPOINTS]:
            row[torch.randint(config.vertices, (VERTICES_PER_KEYPOINT,))] = 0.8 / VERTICES_PER_KEYPOINT
            row[config.vertices + torch.randint(127, (1,))] = 0.2
    network.hand.pose_head.not_hand.copy_(torch.cat([torch.arange(6, 101), torch.arange(128, 178)]))
    network.body.pose_head.joint_rotation.copy_(torch.eye(3).expand(127, 3, 3))
    network.prepare().requires_grad_(False)
    return network.backbone_to(torch.bfloat16 if device.startswith("cuda") else torch.float32).to(device)


def stream(network: Sam3dBody, figure: Figure, mode: str, batch: int, pictures: list, people: int, frames: int) -> tuple[float, int]:
    """Seconds and person-frames from pictures in memory to arrays in memory, as the stage does it."""
    K = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    masks = [(abs(x - 300 - 330 * person) < 110) & (abs(y - 560) < 380) for person in range(people)]
    boxes = [np.array([190 + 330 * person, 180, 410 + 330 * person, 940]) for person in range(people)]
    synchronise(network.mean.device)
    started, work, done = time.perf_counter(), Stream(network, figure, mode, batch), 0
    for frame in range(frames):
        crops = [CropInput(pictures[frame % len(pictures)], box, K, mask) for box, mask in zip(boxes, masks)]
        done += sum(len(labels) for labels, _ in work.feed(crops, list(range(people))))
    done += sum(len(labels) for labels, _ in work.rest())
    return time.perf_counter() - started, done


def counts(network: Sam3dBody, figure: Figure, mode: str, args, pictures: list) -> dict:
    """Kernel launches (on a CPU: operators) and MHR evaluations of one batch."""
    calls = {"mesh": 0, "keypoints": 0, "joints": 0}
    posed, transforms = network.mhr.posed, network.mhr.transforms

    def counted(identity, params, expression=None, vertices=None):
        calls["mesh" if vertices is None else "keypoints"] += 1
        return posed(identity, params, expression, vertices)

    def counted_joints(params):
        calls["joints"] += 1
        return transforms(params)

    network.mhr.posed, network.mhr.transforms = counted, counted_joints
    cuda = args.device.startswith("cuda")
    activities = [torch.profiler.ProfilerActivity.CPU] + ([torch.profiler.ProfilerActivity.CUDA] if cuda else [])
    try:
        with torch.profiler.profile(activities=activities) as profile:
            _, crops = stream(network, figure, mode, args.batch, pictures, args.batch, 1)
    finally:
        del network.mhr.posed, network.mhr.transforms
    events = profile.events()
    launches = sum(event.name in ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx") for event in events)
    if not cuda:
        launches = sum(event.name.startswith("aten::") and event.cpu_parent is None for event in events)
    kind = "kernel_launches" if cuda else "operators"
    return {kind: launches, f"{kind}_per_person_frame": launches / crops, "mhr_evaluations": calls, "person_frames": crops}


# -- track and camera -----------------------------------------------------------------------------------------------------------------------------------------


def track(size: str, args) -> dict:
    """Five people, each shown by a box, followed at 1080p."""
    from body4d_engine.models.sam3.model import Sam3
    from body4d_engine.models.sam3.tracker import Tracker

    sam3 = Sam3.build(size, device=args.device, dtype=torch.bfloat16 if args.device.startswith("cuda") else torch.float32)
    pictures = [np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8) for seed in range(4)]
    out = {}
    for people in (5, 1):
        tracker = Tracker(sam3)
        tracker.start(WIDTH, HEIGHT)
        for person in range(people):
            tracker.prompt(0, person + 1, box=(190 + 330 * person, 180, 410 + 330 * person, 940))
        warm = 10  # until the memory bank is full
        with torch.inference_mode():
            for frame in range(warm):
                tracker.step(frame, pictures[frame % 4])
            reset_peak(args.device)
            synchronise(args.device)
            started = time.perf_counter()
            for frame in range(warm, warm + args.frames):
                tracker.step(frame, pictures[frame % 4])
            synchronise(args.device)
        out[f"{people} people"] = {"frames_per_s": args.frames / (time.perf_counter() - started), "peak_gib": peak_gib(args.device)}
    return out


def camera(size: str, args) -> dict:
    from body4d_engine.models.moge.model import MoGe

    torch.manual_seed(0)
    network = MoGe.build("vitl" if size == "full" else "tiny").eval().to(args.device)
    picture = np.random.default_rng(0).integers(0, 256, (1, HEIGHT, WIDTH, 3), np.uint8)
    network.focal(picture)
    reset_peak(args.device)
    return {"frame_s": timed(lambda: network.focal(picture), args.device), "peak_gib": peak_gib(args.device)}


def timed(work: Callable, device: str) -> float:
    synchronise(device)
    started = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - started


def synchronise(device) -> None:
    if str(device).startswith("cuda"):
        torch.cuda.synchronize()


def reset_peak(device: str) -> None:
    if device.startswith("cuda"):
        torch.cuda.reset_peak_memory_stats()


def peak_gib(device: str) -> float | None:
    """Of what torch holds on the device since `reset_peak`."""
    return torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None


if __name__ == "__main__":
    main()
