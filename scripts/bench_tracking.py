#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How well people are told apart and placed on clips whose truth is exact, because they are rendered.

    python scripts/setup_env.py python scripts/bench_tracking.py [SCENE...] [--seed 0] [--clips DIR] [--blender PYTHON] [--work DIR]

Clips that are not there yet are rendered first (minutes each) and kept in the cache folder. IDF1, switches and MOTA are of a run with the shipped
defaults; lengths in mm, contacts and sliding of a second run that is told the true focal length, averaged over the true people, each judged by
the person of the take that is nearest in the picture. Metrics are those of `body4d evaluate`. Truth: `scripts/render_clips.py`.
"""

import argparse
import json
import os
import sys
import tempfile
from pathlib import Path

import numpy as np
import render_clips
import setup_env
from rendering import scenes
from rich.console import Console
from rich.table import Table

from body4d_engine.backends import get_backend
from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError
from body4d_engine.metrics import (
    IDF1,
    MOTA,
    MPJPE,
    PAMPJPE,
    ContactPrecision,
    ContactRecall,
    IDSwitches,
    TrueFootSliding,
    motion_of,
    overlap,
    read_reference,
    read_truth,
)
from body4d_engine.metrics.evaluation import nearest
from body4d_engine.pipeline import run
from body4d_engine.take import Take

TRACKING = {"IDF1": IDF1(), "switches": IDSwitches(), "MOTA": MOTA()}
BODY = {"MPJPE mm": MPJPE(), "PA-MPJPE mm": PAMPJPE(), "contact precision %": ContactPrecision(), "contact recall %": ContactRecall(),
        "sliding mm/frame": TrueFootSliding()}


def take_of(video: Path, path: Path, focal_px: float | None) -> None:
    settings = {"focal_px": focal_px, "focal_mm": None, "heights": {}}
    for _ in run(open_clip(video), path, get_backend("lite"), [], settings):
        pass


def judge_tracks(folder: Path, take: Take) -> dict[str, float]:
    people = overlap(take, read_truth(folder / "tracking.npz"))
    return {name: metric(people).value for name, metric in TRACKING.items()}


def judge_bodies(folder: Path, take: Take) -> dict[str, float]:
    """Means over the true people of every number that there is."""
    rows = []
    for path in sorted(folder.glob("person_*.npz")):
        truth = read_reference(path)
        try:
            motion, true = truth.beside(motion_of(take, nearest(take, truth)[0]))
        except Body4DError as error:
            if error.code != "reference_absent":
                raise
            continue  # nobody was found there; the tracking numbers say so
        rows.append([metric(motion, true).value for metric in BODY.values()])
    values = np.array([[np.nan if value is None else value for value in row] for row in rows], float).reshape(-1, len(BODY))
    return {name: float(np.mean(column[np.isfinite(column)])) if np.isfinite(column).any() else np.nan for name, column in zip(BODY, values.T)}


def bench(folder: Path, work: Path) -> dict[str, float]:
    """One row of the table."""
    facts = json.loads((folder / "truth.json").read_text(encoding="utf-8"))
    default, informed = work / f"{folder.name}.take", work / f"{folder.name}_focal.take"
    take_of(folder / "clip.mp4", default, None)
    take_of(folder / "clip.mp4", informed, facts["focal_px"])
    with Take.open(default) as take:
        row = {"people": len(facts["people"]), "found": len(take.people), **judge_tracks(folder, take)}
    with Take.open(informed) as take:
        row |= judge_bodies(folder, take)
    return row


def show(rows: dict[str, dict[str, float]]) -> None:
    table = Table("clip", *next(iter(rows.values())), title="rendered clips against their truth")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        table.add_row(name, *("-" if np.isnan(v) else f"{v:.0f}" if isinstance(v, int) or abs(v) >= 10 or v == round(v) else f"{v:.3f}" for v in row.values()))
    Console(width=None if sys.stdout.isatty() else 190).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenes", nargs="*", metavar="SCENE", help="all if left out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--clips", type=Path, default=render_clips.default_folder(), help="where the rendered clips are kept")
    parser.add_argument("--blender", metavar="PYTHON", help="a Python with bpy, for clips that have to be rendered")
    parser.add_argument("--work", type=Path, help="keep the takes here")
    parser.add_argument("--json", type=Path, help="write the table there too")
    arguments = parser.parse_args()
    names = arguments.scenes or list(scenes.SCENES)
    if set(names) - set(scenes.SCENES):
        parser.error(f"no such scene: {', '.join(sorted(set(names) - set(scenes.SCENES)))}")
    rows = {}
    with tempfile.TemporaryDirectory() as temporary:
        work = arguments.work or Path(temporary)
        work.mkdir(parents=True, exist_ok=True)
        for name in names:
            folder = arguments.clips / f"{name}_{arguments.seed}"
            if not (folder / "clip.mp4").is_file():
                with setup_env.Step(f"Rendering {name}"):
                    blender = arguments.blender or render_clips.blender_python()
                    render_clips.clip(name, arguments.seed, arguments.clips, blender, os.cpu_count() or 1)
            rows[name] = bench(folder, work)
            print(name, {key: round(value, 3) for key, value in rows[name].items()}, flush=True)
    show(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
