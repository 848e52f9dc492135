#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Write the clip by which `body4d doctor --verify` proves the full backend, and what is true of it: one person who walks up and waves.

    python scripts/setup_env.py python scripts/bake_proof_clip.py [--blender PYTHON] [--work DIR]

Nobody was filmed: the person is the body of the lite backend (CC0-1.0), drawn by Blender. Into body4d_engine/proving/: clip.mp4, and truth.npz: a
reference file (docs/evaluate.md) with, besides, boxes (T, 4) px of what is seen of the person, and height_m.
"""

import argparse
import json
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import render_clips
from rendering import motions, scenes
from rendering.looks import Look

from body4d_engine.metrics.reference import read_reference

TARGET = Path(__file__).resolve().parent.parent / "body4d_engine" / "proving"
NAME, SEED, WIDTH, FRAMES, FPS = "proof", 4, 640, 24, 15
QUALITY, SAMPLES = 22, 64  # of H.264; per pixel
JOINTS = ("nose", *(f"{side}_{part}" for part in ("eye", "ear", "shoulder", "elbow", "wrist", "hip", "knee", "ankle", "big_toe", "heel")
                    for side in ("left", "right")))


def proof(stage: scenes.Stage) -> scenes.Scene:
    """Somebody walks towards the camera, a little to its right, and waves with the left arm."""
    stage.fps = float(FPS)
    stage.frames(FRAMES)
    puppet = stage.puppet(0.7, 1.72)
    look = Look((0.72, 0.48, 0.36), (0.16, 0.09, 0.05), (0.65, 0.09, 0.08), (0.85, 0.83, 0.78), (0.06, 0.08, 0.16), (0.75, 0.75, 0.75), "hoops")
    motion = motions.walk(puppet, motions.Path([(-0.75, 5.3), (0.5, 3.4)], 1.15, stage.fps, stage.n), motions.WALK, 0.2)
    stage.add(puppet, motions.wave(puppet, motion, stage.fps, "L"), look)
    return stage.shoot((0, -1.35, 0), (0, -0.85, 4.0))


def encode(source: Path, target: Path) -> None:
    """The frames of `source` once more, small: nothing but the picture."""
    with av.open(str(source)) as pictures, av.open(str(target), "w", options={"movflags": "+faststart"}) as out:
        given = pictures.streams.video[0]
        stream = out.add_stream("libx264", rate=FPS, options={"crf": str(QUALITY), "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = given.width, given.height, "yuv420p"
        for number, frame in enumerate(pictures.decode(given)):
            frame.pts, frame.time_base, frame.pict_type = number, Fraction(1, FPS), av.video.frame.PictureType.NONE
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def write_truth(folder: Path, target: Path) -> None:
    truth, facts = read_reference(folder / "person_1.npz"), json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    with np.load(folder / "tracking.npz") as seen:
        boxes = seen["boxes_visible"][:, 0]
    (x, y), focal = truth.principal_px[0], truth.focal_px[0]
    np.savez_compressed(target, joints_m=truth.joints_m[:, [truth.names.index(name) for name in JOINTS]].astype(np.float32), joint_names=np.array(JOINTS),
                        frames=truth.frames, K=np.array([[focal, 0, x], [0, focal, y], [0, 0, 1]]), boxes=boxes.astype(np.float32),
                        height_m=np.float32(facts["people"][0]["height_m"]))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--blender", metavar="PYTHON", help="a Python with bpy; else one that setup_env.py made")
    parser.add_argument("--work", type=Path, help="where the clip is drawn and kept; else a folder that is deleted")
    args = parser.parse_args()
    scenes.scene(proof)
    render_clips.SAMPLES = SAMPLES
    with tempfile.TemporaryDirectory() as temporary:
        folder = render_clips.clip(NAME, SEED, args.work or Path(temporary), args.blender or render_clips.blender_python(), width=WIDTH)
        TARGET.mkdir(exist_ok=True)
        encode(folder / "clip.mp4", TARGET / "clip.mp4")
        write_truth(folder, TARGET / "truth.npz")
    for name in ("clip.mp4", "truth.npz"):
        print(f"{TARGET / name}: {(TARGET / name).stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
