# SPDX-License-Identifier: Apache-2.0
"""Whether the full backend keeps to a limit of memory, with the same result: python scripts/bench_memory.py WORK_FOLDER --caps 8,12,16 --json OUT.json

Writes random weights of full size as they are published (9 GB) and a clip of two people into the folder, then runs every stage once without a cap and
once under each: on a CPU under a real limit of the process's private memory (RLIMIT_DATA, Linux), on a GPU under torch's own. Prints, per cap and stage,
seconds, how many things were taken at once, the peak of memory, and how far the result is from the one without a cap. On a CPU with full-size weights
a run takes some ten minutes; --size tiny takes seconds and goes the same ways with small networks.

--loads prints what reading each checkpoint takes, --count what the networks take while they compute (see counting.py), and neither runs a stage."""

import argparse
import json
import subprocess
import sys
import threading
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
try:
    import torch
except ModuleNotFoundError:
    sys.exit("torch is not here. After `body4d setup full`, or with what it installs: python scripts/setup_env.py full python scripts/bench_memory.py")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from body4d_engine.backends import Full  # noqa: E402
from body4d_engine.clip import open_clip  # noqa: E402
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.events import Notice, StageFinished, StageStarted  # noqa: E402
from body4d_engine.memory import Batches, best_device  # noqa: E402
from body4d_engine.people import BoxPrompt, Person  # noqa: E402
from body4d_engine.pipeline import run  # noqa: E402
from body4d_engine.settings import checked  # noqa: E402
from body4d_engine.take import Take  # noqa: E402

GB = 10**9
RESULTS = ("vertices", "root", "keypoints_px")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("work", type=Path)
    options.add_argument("--size", choices=("full", "tiny"), default="full")
    options.add_argument("--caps", default="8,12,16", help="GB each")
    options.add_argument("--frames", type=int, default=2)
    options.add_argument("--body-only", action="store_true", help="without a look of their own for the hands")
    options.add_argument("--loads", action="store_true")
    options.add_argument("--count", action="store_true")
    options.add_argument("--json", type=Path, metavar="FILE")
    options.add_argument("--only-cap", type=float, help=argparse.SUPPRESS)  # of the one run that this process makes; 0 for none
    args = options.parse_args()
    if args.only_cap is not None:
        one_run(args)
        return
    if args.count:
        count()
        return
    args.work.mkdir(parents=True, exist_ok=True)
    write_weights(args.work / "weights", args.size)
    if args.loads:
        loads(args.work)
        return
    write_frames(args.work / "frames", args.frames, *((1920, 1080) if args.size == "full" else (320, 180)))
    table = []
    for cap in [0.0, *map(float, args.caps.split(","))]:
        options = ["--size", args.size, "--only-cap", str(cap), *(["--body-only"] if args.body_only else [])]
        done = subprocess.run([sys.executable, __file__, str(args.work), *options], capture_output=True, text=True)
        row = json.loads(done.stdout.splitlines()[-1]) if done.returncode == 0 else {"failed": done.stderr[-2000:]}
        table.append({"cap_gb": cap, **row} | (compared(args.work, cap) if cap and "stages" in row else {}))
        print(json.dumps(table[-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(table, indent=1))
    if any("failed" in row for row in table):
        sys.exit(1)


# -- what is taken --------------------------------------------------------------------------------------------------------------------------------------------


def loads(work: Path) -> None:
    """Private memory, in MB, beyond what there was: at the most while each checkpoint is read, with the network there, and after it was let go (Linux)."""
    from body4d_engine.memory import release
    from body4d_engine.models.moge.model import MoGe
    from body4d_engine.models.mhr.reader import extracted
    from body4d_engine.models.sam3.model import Sam3
    from body4d_engine.stages.full import recover

    weights, peak = work / "weights", Peak("cpu")
    rig = weights / "sam-3d-body-dinov3/assets/mhr_model.pt"
    (work / "extract/mhr.safetensors").unlink(missing_ok=True)
    torch.randn(9)  # torch's own
    for name, load in {"MoGe-2": lambda: MoGe.load(weights / "moge-2-vitl-normal"), "SAM 3": lambda: Sam3.load(weights / "sam3"),
                       "SAM 3, lean": lambda: Sam3.load(weights / "sam3", lean=True), "MHR, extracted": lambda: extracted(rig, work / "extract"),
                       "SAM 3D Body": lambda: recover.load("dinov3", weights), "of it the body": lambda: recover.body_of("dinov3", weights, "cpu")}.items():
        release()
        before = private_bytes()
        peak.begin()
        network = load()
        time.sleep(0.1)
        most, network = max(peak.taken(), private_bytes()), [network]
        release()
        after = private_bytes()
        network.clear()
        release()
        taken = {"at most": most, "held": after, "freed": private_bytes()}
        print(f"{name:16s} " + "  ".join(f"{word} {(value - before) / 1e6:6.0f}" for word, value in taken.items()), flush=True)


def count() -> None:
    """What each network takes while it computes, in MB, and what is planned for it."""
    import counting
    from body4d_engine.models.sam_3d_body.config import CONFIGS
    from body4d_engine.stages.full import costs

    sam3, body = counting.sam3(), counting.body(CONFIGS["dinov3"])
    print("MoGe-2, 1080p", counting.alive(counting.measuring(1920, 1080)) / 1e6, "planned", costs.MOGE_PICTURE / 1e6)
    print("SAM 3, a picture", counting.alive(counting.seeing(sam3)) / 1e6, "planned", costs.SAM3_PICTURE / 1e6)
    for people in (1, 2, 4, 8):
        print("SAM 3 following", people, counting.alive(counting.following(sam3, people)) / 1e6, "planned", (costs.FOLLOWING + people * costs.FOLLOWED) / 1e6)
    for (half, hands), planned in costs.CROP.items():
        body.backbone_to(torch.bfloat16 if half else torch.float32)
        for batch in (1, 4, 16):
            taken = counting.alive(partial(body.infer, counting.crops(batch, 1920, 1080), "full" if hands else "body"))
            print("SAM 3D Body,", "bfloat16" if half else "float32", "full" if hands else "body", batch, taken / 1e6, "planned", batch * planned / 1e6)


# -- what is run on -------------------------------------------------------------------------------------------------------------------------------------------


def write_weights(folder: Path, size: str) -> None:
    """Random networks as their checkpoints are published, in the folders of SAM-Body4D's README. What is there already is left."""
    for write, file in ((_write_sam3, "sam3/sam3.pt"), (_write_moge, "moge-2-vitl-normal/model.pt"), (_write_body, "sam-3d-body-dinov3/model.ckpt"),
                        (_write_mhr, "sam-3d-body-dinov3/assets/mhr_model.pt")):
        if not (folder / file).exists():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            with torch.no_grad():
                write(folder / file, size)


def _write_sam3(file: Path, size: str) -> None:
    """Every weight counts (the library starts some at zero), and whoever is asked for is seen."""
    from body4d_engine.models.sam3.keys import to_published
    from body4d_engine.models.sam3.model import Sam3

    net, random = Sam3.build(size).net, torch.Generator().manual_seed(0)
    for name, tensor in net.named_parameters():
        noise = torch.randn(tensor.shape, generator=random)
        if "norm" in name and name.endswith("weight"):
            tensor.copy_(noise.mul_(0.2).add_(1))
        elif tensor.ndim < 2 or "embed" in name or "positional" in name or "token" in name or "pointer" in name and tensor.shape[0] == 1:
            tensor.copy_(noise.mul_(0.3))
        else:
            tensor.copy_(noise.mul_((1.5 / tensor[0].numel()) ** 0.5))
    net.tracker_model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(9.0)
    torch.save({"model": to_published(net.state_dict())}, file)


def _write_moge(file: Path, size: str) -> None:
    """A camera of some focal length whose points the picture moves."""
    from body4d_engine.models.moge.keys import to_published
    from body4d_engine.models.moge.model import MoGe

    torch.manual_seed(0)
    model = MoGe.build("vitl" if size == "full" else "tiny")
    for stack in (model.neck, model.points):
        for tensor in stack.doublers[-1][-1].parameters():
            tensor.mul_(0.1)
        torch.nn.init.dirac_(stack.inputs[-1].weight)  # where on the view plane a pixel lies goes through
    model.points.outputs[-1].weight.mul_(0.1)
    model.points.outputs[-1].weight[:2, :2, 0, 0] = 0.6 * torch.eye(2)
    model.mask.outputs[-1].bias.fill_(8.0)  # everything has a depth
    torch.save({"model_config": model.config, "model": to_published(model.state_dict())}, file)


def _write_body(file: Path, size: str) -> None:
    """The backbone in half precision, as the published file's size says."""
    from measures.bodies import body_network

    from body4d_engine.models.sam_3d_body.keys import to_published

    network = body_network(size, "cpu").backbone_to(torch.bfloat16)
    torch.save({"state_dict": to_published(network.state_dict(), network.config)}, file)


def _write_mhr(file: Path, size: str) -> None:
    from body4d_engine.models.mhr import stand_in
    from body4d_engine.models.sam_3d_body.config import CONFIGS

    stand_in.save_torchscript(file, CONFIGS["dinov3" if size == "full" else "tiny"].vertices)


def write_frames(folder: Path, count: int, width: int, height: int) -> None:
    import cv2

    folder.mkdir(exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 80, (height, width, 3))
    for number in range(count):
        picture = noise.astype(np.uint8)
        for k in range(2):
            x = int((0.15 + 0.45 * k + 0.01 * number) * width)
            picture[int(0.2 * height) : int(0.9 * height), x : x + width // 6] = (200, 60 + 120 * k, 40)
        cv2.imwrite(str(folder / f"{number:04d}.png"), picture)


def people(width: int, height: int) -> list[Person]:
    return [Person(k + 1, prompts=[BoxPrompt(0, *(float(v) for v in ((0.14 + 0.45 * k) * width, 0.19 * height, (0.33 + 0.45 * k) * width, 0.91 * height)))])
            for k in range(2)]


# -- one run --------------------------------------------------------------------------------------------------------------------------------------------------


class Random(Full):
    """The full backend, of whatever size its weights are."""

    def lacks(self, weights=None, models: str = "ours") -> list[str]:
        return []


def use_tiny() -> None:
    """Loading makes the small networks instead of the published sizes."""
    from body4d_engine.models.sam3 import model
    from body4d_engine.models.sam_3d_body.inference import CONFIGS, Sam3dBody

    model.CONFIGS["full"] = model.CONFIGS["tiny"]
    published, tiny = CONFIGS["dinov3"], CONFIGS["tiny"]  # as deep as the published one, as `body_network` makes it
    deep = replace(tiny, layers=published.layers, backbone=replace(tiny.backbone, layers=published.backbone.layers))
    Sam3dBody.load = partial(Sam3dBody.load, configs=(deep,))


class Peak:
    """The most private memory that was in use, in bytes: of the device where that is a GPU, else of this process, looked at a hundred times a second."""

    def __init__(self, device: str):
        self.device, self.most = device, 0
        if device == "cpu":
            threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while True:
            self.most = max(self.most, private_bytes())
            time.sleep(0.01)

    def begin(self) -> None:
        self.most = 0
        if self.device.startswith("cuda"):
            torch.cuda.reset_peak_memory_stats()

    def taken(self) -> int:
        return torch.cuda.max_memory_allocated() if self.device.startswith("cuda") else self.most


def private_bytes() -> int:
    """What this process has of memory that is not a file's (Linux)."""
    return next(1024 * int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))


def one_run(args) -> None:
    device, cap = best_device(), round(args.only_cap * GB)
    if args.size == "tiny":
        use_tiny()
    if cap and device == "cpu":
        import resource

        resource.setrlimit(resource.RLIMIT_DATA, (cap, cap))
    sizes: list[Batches] = []
    begin = Batches.__init__
    Batches.__init__ = lambda self, size, what: (begin(self, size, what), sizes.append(self))[0]
    peak, stages, notices = Peak(device), {}, []
    take = take_of(args.work, args.only_cap)
    with open_clip(args.work / "frames") as clip:
        settings = checked({"weights": str(args.work / "weights"), "memory_limit": cap or None, "hands": not args.body_only})
        try:
            for event in run(clip, take, Random(), people(clip.width, clip.height), settings, fresh=True):
                if isinstance(event, StageStarted):
                    sizes.clear()
                    peak.begin()
                elif isinstance(event, StageFinished):
                    stages[event.stage] = {"seconds": round(event.seconds, 1), "peak_gb": round(peak.taken() / GB, 3), "at_once": [b.size for b in sizes]}
                    print(event.stage, stages[event.stage], file=sys.stderr, flush=True)
                elif isinstance(event, Notice):
                    notices.append(event.code)
        except Body4DError as error:
            print(json.dumps({"device": device, "stages": stages, "notices": notices, "error": error.to_json()}))
            return
    print(json.dumps({"device": device, "stages": stages, "notices": notices}))


def take_of(work: Path, cap: float) -> Path:
    return work / f"cap_{cap:g}.take"


def compared(work: Path, cap: float) -> dict:
    """The largest differences from the take without a cap, and the largest between the two people, which says that there is something to compare."""
    with Take.open(take_of(work, 0)) as whole, Take.open(take_of(work, cap)) as take:
        if take.result_stage(2) is None:
            return {}
        numbers = [person["id"] for person in take.people]
        out = {"mask_pixels": max(int((whole.mask(p, s) != take.mask(p, s)).sum()) for p in numbers for s in range(take.samples)),
               "focal_px": float(np.abs(whole.camera()["focal_px"] - take.camera()["focal_px"]).max())}
        for stage in ("recover", "refine"):
            for name in RESULTS:
                one, other = (np.concatenate([np.asarray(t.by_sample(f"people/{p}", name, stage)[:]) for p in numbers]) for t in (whole, take))
                out[f"{stage} {name}"] = float(np.abs(one - other).max())
        first, second = (np.asarray(whole.by_sample(f"people/{p}", "vertices", "recover")[:]) for p in numbers)
        return {"differences": out, "people_apart_m": float(np.abs(first - second).max())}


if __name__ == "__main__":
    main()
