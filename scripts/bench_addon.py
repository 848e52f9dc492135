# SPDX-License-Identifier: GPL-3.0-or-later
"""How the add-on feels while it generates: its longest tick, the first body, the final build, a cancel. Without a window: ticks as Blender's timer
would make them.

    PYTHON_WITH_BPY scripts/bench_addon.py VIDEO --engine ENGINE [--frames N] [--json FILE]

ENGINE: as in the add-on's preferences. A tick is our own work in one call of the timer; the final build, with its undo step, is announced and
counted by itself. Both are given as seen by the clock and as used by our thread: on a busy machine others take a part of the former. Cancel is
pressed while people are followed, and while bodies are recovered; it is over when another run can be started. Exit status 1 where our thread uses
more than 20 ms in a tick, or 2 s per 1,000 person-frames in the build, or a cancel takes more than 1.5 s.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bpy  # noqa: E402

import body4d_blender  # noqa: E402
from body4d_blender import connection, generating  # noqa: E402
from body4d_engine.take import Take  # noqa: E402

TICK_S, BUILD_S, CANCEL_S = 0.020, 2.0, 1.5


def run(until) -> tuple[list[tuple[float, float]], float]:
    """Tick until then; returns wall and processor seconds of every tick, and processor seconds of what was announced."""
    ticks, announced, end = [], 0.0, time.monotonic() + 3600
    while not until():
        connection.longest_tick_s, before = 0.0, time.thread_time()
        more = connection.step()
        used = time.thread_time() - before
        if connection.longest_tick_s:
            ticks.append((connection.longest_tick_s, used))
        else:
            announced += used
        time.sleep(0.001 if more else connection.TICK_S)
        assert time.monotonic() < end, "it takes too long"
    return ticks, announced


def start(video: Path, folder: Path, frames: int | None):
    return generating.start(generating.Order(clip=video, take=folder, frames=(0, frames, 1), scene=bpy.context.scene.session_uid))


def measure(video: Path, engine: str, frames: int | None) -> dict:
    figures: dict = {"blender": bpy.app.version_string}
    connection.use(engine)
    with tempfile.TemporaryDirectory(prefix="body4d-") as work:
        for stage in ("track", "recover"):
            generation = start(video, Path(work, f"{stage}.take"), frames)
            run(lambda g=generation, s=stage: g.state == "done" or (g.stage == s and g.done > 3))
            began = time.monotonic()
            generation.cancel()
            run(lambda g=generation: g.state == "done")
            figures[f"cancel in {stage} s"] = time.monotonic() - began
        generation = start(video, Path(work, "whole.take"), frames)
        ticks, build_cpu = run(lambda: generation.state == "done")
        if generation.error:
            raise generation.error
        with Take.open(Path(work, "whole.take")) as take:
            shapes = take.samples * len(take.people)
        wall, cpu = (sorted(1000 * tick[i] for tick in ticks) for i in (0, 1))
        figures.update({"first body s": generation.first_mesh_s, "whole run s": time.monotonic() - generation.begun, "person-frames": shapes,
                        "build s": generating.last_build_s, "build s per 1000": generating.last_build_s * 1000 / max(1, shapes),
                        "build cpu s per 1000": build_cpu * 1000 / max(1, shapes), "ticks": len(ticks), "99.9 % of ticks ms": wall[int(len(wall) * 0.999)],
                        "longest tick ms": wall[-1], "longest tick cpu ms": cpu[-1]})
        connection.stop()
    return figures


def main() -> int:
    arguments = sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]
    parser = argparse.ArgumentParser("bench_addon.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("video", type=Path)
    parser.add_argument("--engine", required=True)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    body4d_blender.register()
    try:
        bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
        figures = measure(options.video.absolute(), options.engine, options.frames)
    finally:
        body4d_blender.unregister()
    for name, value in figures.items():
        print(f"{name:<22} {value:.3f}" if isinstance(value, float) else f"{name:<22} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    good = (figures["longest tick cpu ms"] <= 1000 * TICK_S and figures["build cpu s per 1000"] <= BUILD_S
            and max(value for name, value in figures.items() if name.startswith("cancel")) <= CANCEL_S)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
