# SPDX-License-Identifier: Apache-2.0
"""How fast the full backend's networks are, and how much memory they take, with random weights of full size: python scripts/bench_full.py --json OUT.json

Needs torch, transformers and numpy, this checkout, and no network. On a GPU the published sizes are measured; without one tiny ones are (`--size full`
overrules), SAM 3D Body as deep as the published one: their times say nothing, its counts of operators and of MHR evaluations do.

    camera     MoGe-2 on one frame
    track      SAM 3: frames per second at 1080p with five people and with one
    recover    SAM 3D Body: seconds per person-frame with five people and with one, operators, kernel launches and MHR evaluations of a batch
    shares     where its time goes, and the least that its arithmetic takes here
    precision  how far batches change its result, in float32 and bfloat16
    reference  the published code beside ours (`--reference CHECKOUT` of facebookresearch/sam-3d-body, with the packages that it needs)
    compile-body, compile-full
               with torch.compile against without, each in a process of its own

Each network is built and freed for its part, as a run does, so the largest of the parts' peaks is that of the whole pipeline. All of it ends within
`--minutes`: what would not is left out and named. The file is written after each part."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import traceback
from functools import partial
from pathlib import Path

try:
    import torch
except ModuleNotFoundError:
    sys.exit("torch is not here. After `body4d setup full`, or with what it installs: python scripts/setup_env.py full python scripts/bench_full.py")

sys.path[:0] = [str(Path(__file__).resolve().parents[1]), str(Path(__file__).resolve().parent)]

from body4d_engine.memory import limit_device, release  # noqa: E402
from measures import bodies, others  # noqa: E402
from measures.device import machine  # noqa: E402
from measures.reference import reference  # noqa: E402

PUBLISHED = {"person_frame_s": {"5 people": 0.39, "1 people": 0.70}, "track_frames_per_s": 2.9, "peak_gb": "14.5 to 46.8",
             "machine": "one H800, SAM-Body4D's README"}
WANTED = {"recover, full, 5 people, person_frame_s": 0.05, "recover, body, 5 people, person_frame_s": 0.015, "track, 5 people, frames_per_s": 15,
          "peak_gib": 12e9 / 2**30}
PARTS = {"camera": others.camera, "track": others.track, "recover": bodies.recover, "shares": bodies.shares, "precision": bodies.precision,
         "reference": reference, **{f"compile-{mode}": partial(bodies.compiled, mode) for mode in bodies.MODES}}
LEAST = {"reference": 90, "compile-body": 60, "compile-full": 60}  # seconds that a part is not begun with less of
IN_PIPELINE = ("camera", "track", "recover")


def main() -> int:
    args = arguments()
    begun = time.perf_counter()
    if args.limit is not None:
        limit_device(args.device, args.limit)
    result = {"machine": machine(args.device), "size": args.size, "memory_cap": args.limit, "published": PUBLISHED, "wanted": WANTED, "parts": {}}
    for name in args.parts.split(","):
        left = 60 * args.minutes - (time.perf_counter() - begun)
        started = time.perf_counter()
        result["parts"][name] = found = part(name, args, left)
        found["took_s"] = round(time.perf_counter() - started, 1)
        peaks = {name: result["parts"][name]["peak_gib"] for name in IN_PIPELINE if "peak_gib" in result["parts"].get(name, {})}
        result["whole_pipeline"] = {"peak_gib": max(peaks.values(), default=None), "by_stage_gib": peaks}
        result["took_s"] = round(time.perf_counter() - begun, 1)
        print(name, json.dumps(found, indent=1), flush=True)
        if args.json:
            args.json.write_text(json.dumps(result, indent=1))
    print(table(result), flush=True)
    return int(any("failed" in found for found in result["parts"].values()))


def arguments() -> argparse.Namespace:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--json", type=Path, metavar="FILE")
    options.add_argument("--size", choices=("full", "tiny"))
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--batch", type=int, help="crops at once; by default as many as the stage would take")
    options.add_argument("--frames", type=int, help="frames of the measured runs (48; tiny: 4)")
    options.add_argument("--parts", default=",".join(PARTS))
    options.add_argument("--reference", type=Path, metavar="CHECKOUT")
    options.add_argument("--memory-cap", type=float, metavar="GB", help="on CUDA torch refuses more; elsewhere only the plan keeps to it")
    options.add_argument("--minutes", type=float, default=8.5)
    args = options.parse_args()
    unknown = set(args.parts.split(",")) - set(PARTS)
    if unknown:
        options.error(f"there is no part {', '.join(sorted(unknown))}")
    args.size = args.size or ("full" if args.device.startswith("cuda") else "tiny")
    args.frames = args.frames or (48 if args.size == "full" else 4)
    args.batch = args.batch or (None if args.size == "full" else 8)
    args.limit = None if args.memory_cap is None else round(args.memory_cap * 1e9)
    return args


def part(name: str, args: argparse.Namespace, left: float) -> dict:
    """What a part found, or why it did not: one that fails does not take the others with it."""
    if name == "reference" and args.reference is None:
        return {"left_out": "no --reference was given"}
    if left < LEAST.get(name, 20):
        return {"left_out": f"{left:.0f} s of {args.minutes:g} minutes are left"}
    if name.startswith("compile-") and args.parts != name:
        return by_itself(name, args, left)
    try:
        return PARTS[name](args)
    except Exception as error:
        traceback.print_exc()
        return {"failed": f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"}
    finally:
        release()


def by_itself(name: str, args: argparse.Namespace, left: float) -> dict:
    """A part in a process of its own: how long a compiler takes nobody knows before, and it can be ended."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "found.json"
        command = [sys.executable, __file__, "--parts", name, "--json", str(file), "--size", args.size, "--device", args.device, "--frames", str(args.frames),
                   *(["--batch", str(args.batch)] if args.batch else []), *(["--memory-cap", str(args.memory_cap)] if args.memory_cap else [])]
        try:
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=left)
        except subprocess.TimeoutExpired:
            return {"left_out": f"it was not done in the {left:.0f} s that were left"}
        return json.loads(file.read_text())["parts"][name] if file.exists() else {"failed": done.stderr[-500:]}


def table(result: dict) -> str:
    """The figures that were asked for, in a few lines."""
    parts, lines = result["parts"], [f"\n{result['machine']['device']}, {result['size']} networks, {result['took_s']:.0f} s"]

    def line(what: str, *path) -> None:
        value = parts
        for step in path:
            value = value.get(step, {}) if isinstance(value, dict) else {}
        lines.extend([f"  {what:64s} {value:.4g}"] if isinstance(value, (int, float)) else [])

    for mode in bodies.MODES:
        for people in (5, 1):
            line(f"recover, {mode}, {people} people: s per person-frame", "recover", f"{mode}, {people} people", "person_frame_s")
        line(f"recover, {mode}: s that its arithmetic takes at least", "shares", mode, "floor_s")
        for name in parts.get("shares", {}).get(mode, {}).get("by_part_s", {}):
            line(f"    {name}: s", "shares", mode, "by_part_s", name)
        line("    packing and upload: s, meanwhile", "shares", mode, "packing_and_upload_s")
        line(f"recover, {mode}: times faster when compiled", f"compile-{mode}", "times_faster")
        for people in (5, 1):
            beside = parts.get("reference", {}).get(f"{mode}, {people} people", {})
            for name, values in beside.items():
                if "theirs" in values and name != "mhr_evaluations_per_call":
                    lines.append(f"  {mode}, {people} people, {name}: theirs {values['theirs']:.4g}, ours {values['ours']:.4g}")
    for people in (5, 1):
        line(f"track, {people} people: frames/s", "track", f"{people} people", "frames_per_s")
    line("camera: s per frame", "camera", "frame_s")
    peak = result["whole_pipeline"]["peak_gib"]
    lines.extend([f"  {'whole pipeline: peak GiB':64s} {peak:.4g}"] if peak else [])
    lines.extend(f"  {name}: {found.get('left_out') or found['failed']}" for name, found in parts.items() if "left_out" in found or "failed" in found)
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
