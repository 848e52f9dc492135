#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Clips of people with exact truth, rendered with Blender: for tests and benchmarks.

    python scripts/setup_env.py python scripts/render_clips.py [SCENE...] [--seed 0] [--out DIR] [--blender PYTHON]
    python scripts/setup_env.py python scripts/render_clips.py --list

Per scene a folder DIR/SCENE_SEED with clip.mp4, person_ID.npz (reference files for `body4d evaluate`), tracking.npz (boxes, ids, visibility),
masks/NNNNNN.png (which id is seen in each pixel) and truth.json. The same seed gives the same truth. A clip that is there is left as it is.
"""

import argparse
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import setup_env
from pythons import choose
from rendering import scenes, truth

from body4d_engine.video import VideoWriter

DRAW = Path(__file__).resolve().parent / "rendering" / "blender.py"
SAMPLES, NOISE = 6, 1.5  # samples per pixel; of the sensor's noise, in grey levels


def default_folder() -> Path:
    return setup_env.home() / "rendered"


def clip(name: str, seed: int, out: Path, blender: str, threads: int = 2, frames: int | None = None, width: int = 640, vertices: bool = False) -> Path:
    """The folder of the scene's clip and truth, rendered now if it is not there yet."""
    folder = out / f"{name}_{seed}"
    if (folder / "clip.mp4").is_file():
        return folder
    work = out / f"{name}_{seed}.partial"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    scene = scenes.build(name, seed, frames, width)
    truth.write(scene, work, vertices)
    bake(scene, work / "work", threads)
    subprocess.run([blender, str(DRAW), str(work / "work")], check=True, stdout=subprocess.DEVNULL, env=setup_env.child_environment())
    with VideoWriter(work / "clip.mp4", scene.width, scene.height, scene.fps) as writer:
        for picture in pictures(scene, work / "work" / "frames"):
            writer.write(picture)
    shutil.rmtree(work / "work")
    os.replace(work, folder)
    return folder


def pictures(scene: scenes.Scene, frames: Path) -> Iterator[np.ndarray]:
    """Each frame (H, W, 3) uint8 RGB, put together from the parts that `rendering/blender.py` drew, with a sensor's noise."""
    empty = cv2.imread(str(frames / "empty.png"))
    rng = np.random.default_rng(scene.seed)
    for frame in range(len(scene)):
        picture = np.zeros((scene.height, scene.width, 3), np.uint8) if empty is None else empty.copy()
        for path in frames.glob(f"{frame:06d}_*.png"):
            x, y = map(int, path.stem.split("_")[1:])
            part = cv2.imread(str(path))
            picture[y : y + len(part), x : x + part.shape[1]] = part
        noisy = picture + rng.normal(0, NOISE, picture.shape)
        yield np.ascontiguousarray(np.clip(noisy + 0.5, 0, 255).astype(np.uint8)[..., ::-1])


def bake(scene: scenes.Scene, folder: Path, threads: int = 2, silhouette: bool = False) -> None:
    """What `rendering/blender.py` reads: scene.json and person_ID.npz with vertices (T, V, 3) in world axes."""
    folder.mkdir(parents=True)
    for i, actor in enumerate(scene.actors, 1):
        np.savez(folder / f"person_{i}.npz", vertices=actor.performance.vertices(actor.clothed), faces=actor.performance.puppet.model.body.faces,
                 colors=actor.colors, rest=actor.texture)
    light = vars(scene.light)
    spec = {"width": scene.width, "height": scene.height, "K": scene.K.tolist(), "R": scene.R.tolist(), "t": scene.t.tolist(), "props": scene.props,
            "threads": threads, "samples": SAMPLES, "silhouette": silhouette, **light}
    (folder / "scene.json").write_text(json.dumps(spec), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="all if left out")
    parser.add_argument("--list", action="store_true", help="print the scenes and stop")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=default_folder())
    parser.add_argument("--blender", metavar="PYTHON", help="a Python with bpy; else one is set up")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--vertices", action="store_true", help="write the body's vertices into the truth too (25 MB per person and 150 frames)")
    arguments = parser.parse_args()
    if arguments.list:
        for name, function in scenes.SCENES.items():
            print(f"{name:<16} {function.__doc__.strip()}")
        return
    unknown = set(arguments.scenes) - set(scenes.SCENES)
    if unknown:
        parser.error(f"no such scene: {', '.join(sorted(unknown))} (see --list)")
    blender = arguments.blender or blender_python()
    for name in arguments.scenes or scenes.SCENES:
        start = time.perf_counter()
        folder = clip(name, arguments.seed, arguments.out, blender, arguments.threads, vertices=arguments.vertices)
        print(f"{folder} ({time.perf_counter() - start:.0f} s)", flush=True)


def blender_python() -> str:
    """The interpreter of an environment with bpy, made on first use."""
    return str(setup_env.executable(setup_env.blender(choose())))


if __name__ == "__main__":
    main()
