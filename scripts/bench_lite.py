#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Seconds per frame of the lite backend by stage, and its peak memory for a clip and for a long clip made of it.

    python scripts/setup_env.py python scripts/bench_lite.py [VIDEO] [--loops 10] [--lines 360] [--blender PYTHON]
    python scripts/setup_env.py python scripts/bench_lite.py --loops 79 --lines 360       # 18,170 frames of the demo clip

VIDEO: the demo clip if left out. Every run is a process of its own; peak memory is the largest resident set of that process. The long clip shows
the same pictures forwards and backwards in turn, so that nobody jumps and nothing lets the memory of it go. Figures are wall time and depend on
the machine: compare ratios.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import setup_env

from body4d_engine.clip import open_clip
from body4d_engine.video import VideoWriter


def measured(*arguments) -> tuple[float, float]:
    """Seconds and peak memory (MB) of one engine process."""
    start = time.perf_counter()
    child = subprocess.Popen([sys.executable, "-m", "body4d_engine", *map(str, arguments)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"body4d {arguments[0]} failed")
    return time.perf_counter() - start, usage.ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def looped(video: Path, times: int, lines: int | None, path: Path) -> Path:
    """The clip to and fro, `times` in all; lines: how many the picture is to have."""
    clip = open_clip(video)
    size = (round(clip.width * lines / clip.height / 2) * 2, lines) if lines else (clip.width, clip.height)
    with VideoWriter(path, *size, clip.fps) as writer:
        for number in range(times):
            for _, rgb in clip.iterate(clip.frames[:: -1 if number % 2 else 1]):
                writer.write(cv2.resize(rgb, size, interpolation=cv2.INTER_AREA) if lines else rgb)
    return path


def bench(video: Path, folder: Path, name: str) -> dict:
    take, summary = folder / f"{name}.take", folder / f"{name}.json"
    seconds, peak = measured("run", video, "--out", take, "--summary-json", summary)
    result = json.loads(summary.read_text(encoding="utf-8"))
    overlay, overlay_peak = measured("export", take, "--layout", "overlay", "--out", folder / f"{name}.mp4", "--clip", video)
    return {"name": name, "frames": result["frames"], "people": len(result["people"]), "stages": result["seconds_per_frame"], "total": seconds,
            "peak": peak, "overlay": overlay, "overlay_peak": overlay_peak, "take": take}


def show(row: dict) -> None:
    frames = row["frames"]
    print(f"\n{row['name']}: {frames} frames, {row['people']} people")
    for stage, seconds in row["stages"].items():
        print(f"  {stage:<10} {seconds:8.4f} s per frame")
    print(f"  {'decode to take':<14} {row['total'] / frames:8.4f} s per frame (the whole process, with its start)")
    print(f"  {'overlay':<14} {row['overlay'] / frames:8.4f} s per frame, peak {row['overlay_peak']:.0f} MB")
    if "blend" in row:
        print(f"  {'.blend':<14} {row['blend'] / frames:8.4f} s per frame")
    print(f"  peak memory of the run {row['peak']:.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path, nargs="?")
    parser.add_argument("--loops", type=int, default=10, help="0: only the clip itself")
    parser.add_argument("--lines", type=int, help="scale the pictures to so many lines")
    parser.add_argument("--blender", metavar="PYTHON", help="a Python with bpy, to time the .blend too")
    arguments = parser.parse_args()
    if arguments.video is None:
        arguments.video = setup_env.demo_clip()
    with tempfile.TemporaryDirectory() as folder:
        once = bench(looped(arguments.video, 1, arguments.lines, Path(folder) / "once.mp4") if arguments.lines else arguments.video, Path(folder), "once")
        if arguments.blender:
            start = time.perf_counter()
            subprocess.run([arguments.blender, Path(__file__).with_name("build_scene.py"), once["take"], "--out", Path(folder) / "once.blend"], check=True)
            once["blend"] = time.perf_counter() - start
        show(once)
        if arguments.loops:
            many = bench(looped(arguments.video, arguments.loops, arguments.lines, Path(folder) / "many.mp4"), Path(folder), f"looped {arguments.loops} times")
            show(many)
            print(f"\nlooped against once: peak memory {many['peak'] / once['peak']:.2f}, seconds per frame "
                  f"{many['total'] / many['frames'] / (once['total'] / once['frames']):.2f}")


if __name__ == "__main__":
    main()
