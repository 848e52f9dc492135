# SPDX-License-Identifier: Apache-2.0
"""SAM 3D Body with random weights: person-frames per second, operators, arithmetic, time by part, and how far batches change a result."""

import time
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch

from body4d_engine.memory import planned
from body4d_engine.models.mhr import stand_in
from body4d_engine.models.sam_3d_body import inference, stream
from body4d_engine.models.sam_3d_body.config import CONFIGS, KEYPOINTS, MHR_VERTICES
from body4d_engine.models.sam_3d_body.crops import CropInput, pack
from body4d_engine.models.sam_3d_body.figure import Figure
from body4d_engine.models.sam_3d_body.inference import MODES, Sam3dBody
from body4d_engine.models.sam_3d_body.stream import Stream, record
from body4d_engine.stages.full.costs import recovering

from .device import Clock, flops, launches, peak, seconds, synchronise, throughput

WIDTH, HEIGHT, FOCAL = 1920, 1080, 1700.0
VERTICES_PER_KEYPOINT = 8
JOINTS_OF_A_HAND = (3, 1, 1, 3, 1, 1, 3, 1, 1, 3, 1, 1, 2, 3, 1, 1)


def body_network(size: str, device: str, dtype: torch.dtype | None = None, whole_mesh: bool = False) -> Sam3dBody:
    """Random weights scaled so that bodies differ and stand in front of the camera, keypoints on mesh and joints. `tiny` is as deep as the published
    network, so that its operators are as many, and its bodies have few vertices, unless the whole mesh is asked for.

    Its encoder is in bfloat16 on CUDA and in float32 elsewhere, unless a dtype is given."""
    published, tiny = CONFIGS["dinov3"], CONFIGS["tiny"]
    config = published if size == "full" else replace(tiny, layers=published.layers, backbone=replace(tiny.backbone, layers=published.backbone.layers))
    config = replace(config, vertices=MHR_VERTICES, faces=published.faces) if whole_mesh else config
    torch.manual_seed(0)
    mhr = stand_in.mhr(config.vertices)
    with torch.device(device):
        network = Sam3dBody.build(config, mhr).requires_grad_(False)
        for parameter in network.parameters():
            if parameter.dim() > 1:
                parameter.normal_(std=parameter[0].numel() ** -0.5)
            else:
                parameter.add_(0.1 * torch.randn_like(parameter))
        for branch in (network.body, network.hand):
            head = branch.pose_head
            branch.initial_pose.copy_(straight() + 0.3 * torch.randn(519))
            head.proj[2].weight.mul_(0.4)
            branch.initial_camera.copy_(torch.tensor([-0.9 if branch is network.body else -0.06, 0.0, 0.0]))
            branch.camera_head.proj[2].weight.mul_(0.1)
            head.scale_comps.normal_(std=0.1)
            head.scale_comps[8, 8], head.scale_comps[9, 9] = 0.2, 0.25
            head.left_hand.copy_(torch.arange(68, 95))
            head.right_hand.copy_(torch.arange(95, 122))
            for row in head.keypoint_mapping[:KEYPOINTS]:
                row[torch.randint(config.vertices, (VERTICES_PER_KEYPOINT,))] = 0.8 / VERTICES_PER_KEYPOINT
                row[config.vertices + torch.randint(127, (1,))] = 0.2
        network.hand.pose_head.not_hand.copy_(torch.cat([torch.arange(6, 101), torch.arange(128, 178)]))
        network.body.pose_head.joint_rotation.copy_(torch.eye(3).expand(127, 3, 3))
    if dtype is None:
        dtype = torch.bfloat16 if device.startswith("cuda") else torch.float32
    return network.to(device).prepare().backbone_to(dtype)


def straight() -> torch.Tensor:
    """(519,) all angles zero, as the network writes them."""
    joint, angle = [1.0, 0, 0, 0, 1, 0], [0.0, 1]
    hand = [number for count in JOINTS_OF_A_HAND for number in (joint if count == 3 else angle * count)]
    return torch.tensor([*joint, *joint * 23, *angle * 58, *[0.0] * (6 + 45 + 28), *hand * 2, *[0.0] * 72])


def pictures(count: int = 4) -> list[np.ndarray]:
    """Waves with noise: crops that differ."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    found = []
    for seed in range(count):
        random = np.random.default_rng(seed)
        waves = [127 + 60 * np.sin(x * a + y * b + c) for a, b, c in random.uniform(0.005, 0.1, (3, 3))]
        found.append((np.stack(waves, axis=-1) + random.normal(0, 20, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8))
    return found


def crops(shown: list[np.ndarray], people: int, frame: int = 0) -> list[CropInput]:
    """People beside each other in one frame, with masks."""
    K = np.array([[FOCAL, 0, WIDTH / 2 - 0.5], [0, FOCAL, HEIGHT / 2 - 0.5], [0, 0, 1]])
    found = []
    for person in range(people):
        left = 190 + 330 * (person % 5)
        mask = np.zeros((HEIGHT, WIDTH), bool)
        mask[200:920, left + 20 : left + 200] = True
        found.append(CropInput(shown[frame % len(shown)], np.array([left, 180, left + 220, 940]), K, mask))
    return found


def several(shown: list[np.ndarray], count: int) -> list[list[CropInput]]:
    """So many crops of frames with five people."""
    return [crops(shown, min(5, count - first), first // 5) for first in range(0, count, 5)]


def packed(network: Sam3dBody, frames: list[list[CropInput]]):
    """The crops of these frames on the device."""
    return stream.join([pack(frame, network.mean.device) for frame in frames])


def streamed(network: Sam3dBody, figure: Figure, mode: str, batch: int, shown: list, people: int, frames: int) -> tuple[float, int]:
    """Seconds and person-frames from pictures in memory to arrays in memory, as the stage does it."""
    given = [crops(shown, people, frame) for frame in range(len(shown))]
    synchronise(network.mean.device)
    started, work, done = time.perf_counter(), Stream(network, figure, mode, batch), 0
    for frame in range(frames):
        done += sum(len(labels) for labels, _ in work.feed(given[frame % len(given)], list(range(people))))
    done += sum(len(labels) for labels, _ in work.rest())
    return time.perf_counter() - started, done


def batch_of(args, half: bool) -> int:
    """What was asked for, or what the stage would plan."""
    return args.batch or planned(recovering(WIDTH, HEIGHT, half, True), args.device, args.limit)


def recover(args) -> dict:
    """Person-frames per second, memory, operators and evaluations of MHR."""
    shown, out = pictures(), {}
    with peak(args.device) as whole:
        network = body_network(args.size, args.device)
        figure, batch = Figure(network), batch_of(args, network.backbone_dtype == torch.bfloat16)
        out |= {"parameters": sum(value.numel() for value in network.parameters()), "batch": batch}
        for mode in MODES:
            for people in (5, 1):
                streamed(network, figure, mode, batch, shown, people, -(-2 * batch // people))  # warm
                taken, count = streamed(network, figure, mode, batch, shown, people, max(2, 5 * args.frames // people))
                out[f"{mode}, {people} people"] = {"person_frame_s": taken / count, "person_frames": count}
            out[f"{mode}, a batch of {batch}"] = counts(network, figure, mode, batch, shown)
    return out | {"peak_gib": whole["gib"]}


def counts(network: Sam3dBody, figure: Figure, mode: str, batch: int, shown: list) -> dict:
    """Of one batch, from frames on the device to records."""
    given, calls = packed(network, several(shown, batch)), {"mesh": 0, "keypoints": 0, "joints": 0}
    posed, transforms = network.mhr.posed, network.mhr.transforms

    def counted(identity, params, expression=None, vertices=None):
        calls["mesh" if vertices is None else "keypoints"] += 1
        return posed(identity, params, expression, vertices)

    def counted_joints(params):
        calls["joints"] += 1
        return transforms(params)

    def work():
        calls.update(dict.fromkeys(calls, 0))
        return record(network.infer(given, mode), figure)

    network.mhr.posed, network.mhr.transforms = counted, counted_joints
    try:
        found = launches(work, str(network.mean.device))
    finally:
        del network.mhr.posed, network.mhr.transforms
    return {"person_frames": batch, **found, **{f"{name}_per_person_frame": value / batch for name, value in found.items()},
            "mhr_evaluations": calls, "mhr_evaluations_per_person_frame": sum(calls.values()) / batch}


def shares(args) -> dict:
    """Where the time of a batch goes, and the least that its arithmetic takes at the speed that products of matrices have here."""
    network, shown = body_network(args.size, args.device), pictures()
    figure, batch = Figure(network), batch_of(args, network.backbone_dtype == torch.bfloat16)
    frames = several(shown, batch)
    given = packed(network, frames)
    half, single = (throughput(args.device, dtype) for dtype in (network.backbone_dtype, torch.float32))
    out: dict = {"batch": batch, "encoder_flop_per_s": half, "float32_flop_per_s": single}
    small = packed(network, several(shown, 1))
    image = inference.cut(small.frames, small.frame_of, small.centre, small.side, network.config.image_size)
    with torch.inference_mode():
        encoder = flops(lambda: network.encode(image, None, small.has_mask))
    for mode in MODES:
        total, encodings = flops(lambda mode=mode: network.infer(small, mode)), 1 if mode == "body" else 3
        floor = encodings * encoder / half + (total - encodings * encoder) / single
        record(network.infer(given, mode), figure)
        taken = seconds(lambda mode=mode: record(network.infer(given, mode), figure), args.device) / batch
        uploading = seconds(lambda: packed(network, frames), args.device) / batch
        clock = Clock(args.device)
        with parts_timed(network, clock):
            record(network.infer(given, mode), figure)
        by_part = {name: found / batch for name, found in clock.seconds().items()}
        out[mode] = {"flop_per_person_frame": {"encoder": encodings * encoder, "float32": total - encodings * encoder}, "floor_s": floor,
                     "person_frame_s": taken, "packing_and_upload_s": uploading, "by_part_s": by_part}
    return out


@contextmanager
def parts_timed(network: Sam3dBody, clock: Clock):
    owners = {"crops": (inference, "cut"), "encoder": (network.backbone, "forward"), "body decoder": (network.body, "forward"),
              "hand decoder": (network.hand, "forward"), "MHR": (network.mhr, "posed"), "MHR, joints": (network.mhr, "transforms")}
    before = {name: getattr(owner, attribute) for name, (owner, attribute) in owners.items()}
    for name, (owner, attribute) in owners.items():
        setattr(owner, attribute, clock.around(name, before[name]))
    try:
        yield
    finally:
        for name, (owner, attribute) in owners.items():
            if owner is inference:
                owner.cut = before[name]
            else:
                delattr(owner, attribute)


def precision(args) -> dict:
    """How far the size of the batch, and the company in it, moves vertices in metres; and how far the bodies are from each other, to compare that with."""
    network, shown = body_network(args.size, args.device, torch.float32), pictures()
    count = 8 if args.device.startswith("cuda") or args.size == "tiny" else 2
    given, out = packed(network, several(shown, count)), {"crops": count}
    for dtype in (torch.float32, torch.bfloat16):
        network.backbone_to(dtype)
        whole = placed(network, given, count)
        others = torch.cat([torch.arange(1), torch.arange(1, count).flip(0)]).to(given.side.device)
        company = placed(network, given.take(others), count)
        out[str(dtype).removeprefix("torch.")] = {
            "other_batch_sizes_m": {str(size): apart(whole, placed(network, given, size)) for size in (1, 3) if size < count},
            "first_row_same_bits_in_other_company": bool(torch.equal(whole[0], company[0])),
            "bodies_apart_m": float((whole[:, None] - whole[None]).norm(dim=-1).mean(dim=-1).max())}
        if dtype == torch.float32:
            exact = whole
    return out | {"bfloat16_from_float32_m": apart(whole, exact)}


def placed(network: Sam3dBody, given, size: int) -> torch.Tensor:
    """(N, V, 3) vertices in the camera's space."""
    parts = list(network.infer_in_batches(given, "full", size))
    return torch.cat([part["pred_vertices"] + part["pred_cam_t"][:, None] for part in parts])


def apart(first: torch.Tensor, second: torch.Tensor) -> float:
    return float((first - second).norm(dim=-1).max())


def compiled(mode: str, args) -> dict:
    """With torch.compile against without, in the same process. On a CPU only the graphs are made (aot_eager): its compiler takes minutes for no gain."""
    network, shown = body_network(args.size, args.device), pictures()
    figure, batch = Figure(network), batch_of(args, network.backbone_dtype == torch.bfloat16)
    backend = "inductor" if args.device.startswith("cuda") else "aot_eager"

    def run() -> float:
        streamed(network, figure, mode, batch, shown, 5, -(-2 * batch // 5))
        taken, count = streamed(network, figure, mode, batch, shown, 5, args.frames)
        return taken / count

    plain = run()
    network.compile_parts(backend)
    compiling = seconds(lambda: streamed(network, figure, mode, batch, shown, 5, 1), args.device)
    fast = run()
    return {"backend": backend, "batch": batch, "compile_s": compiling, "person_frame_s": {"plain": plain, "compiled": fast}, "times_faster": plain / fast,
            "not_compiled": network.not_compiled}
