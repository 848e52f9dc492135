# SPDX-License-Identifier: Apache-2.0
"""How long a take of 18,439 vertices x 1,000 frames takes to import and to play, against relative shape keys written with data.foreach_set.

python scripts/bench_import.py [PROGRAM...] [--frames N] [--json FILE]

Each PROGRAM is a Python that has the bpy module, or a Blender; without one, this Python.

Every way runs in a process of its own, so that its peak memory is its own. Both start from the same array in memory and end with the object in
the scene. To build is to make mesh, keys and curves: "first" is the first build of the process, which also has to get its memory from the system, and
is what a user waits for; "best" is the best of three, which shows the work alone. "played" is scene.frame_set, "error" the largest difference
to the array, both over all frames but the first (of relative keys, which are slow to play, over some sixty). Exit status 1 where any figure falls short.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np  # noqa: E402

RINGS, SECTORS = 104, 179  # 18,439 vertices, 36,874 faces: the size of the MHR body
REPEATS = 3
FASTER_BUILT, CHEAPER_PLAYED = 8, 20
WAYS = ("keys", "relative", "cache", "take")


def sphere() -> tuple[np.ndarray, np.ndarray]:
    """A closed sphere: vertices (V, 3), faces (F, 3)."""
    polar = np.linspace(0, np.pi, RINGS + 1)[1:-1, None]
    around = np.arange(SECTORS) * 2 * np.pi / SECTORS
    rings = np.stack(np.broadcast_arrays(np.sin(polar) * np.cos(around), np.cos(polar), np.sin(polar) * np.sin(around)), -1).reshape(-1, 3)
    vertices = np.concatenate([rings, [[0, 1, 0], [0, -1, 0]]]).astype(np.float32)
    s = np.arange(SECTORS)
    t = (s + 1) % SECTORS
    r = np.arange(RINGS - 2)[:, None] * SECTORS
    sides = [np.stack([r + s, r + t, r + t + SECTORS], -1), np.stack([r + s, r + t + SECTORS, r + s + SECTORS], -1)]
    last = (RINGS - 2) * SECTORS
    caps = [np.stack([np.full_like(s, len(rings)), t, s], -1), np.stack([np.full_like(s, len(rings) + 1), last + s, last + t], -1)]
    return vertices, np.concatenate([f.reshape(-1, 3) for f in sides + caps]).astype(np.int32)


def motion(frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Person-space vertices (N, V, 3) float32 on a random walk, and faces."""
    vertices, faces = sphere()
    random = np.random.default_rng(0)
    walk = np.empty((frames, *vertices.shape), np.float32)
    for i in range(frames):
        vertices = vertices + random.normal(0, 0.01, vertices.shape).astype(np.float32)
        walk[i] = vertices
    return walk, faces


def build_keys(walk, faces):
    import bpy

    from body4d_blender.scene.mesh import keyed_mesh
    from body4d_blender.scene.timing import Timing

    mesh = keyed_mesh("body", "bench", walk, faces, 0, range(len(walk)), Timing(1))
    body = bpy.data.objects.new("body", mesh)
    bpy.context.scene.collection.objects.link(body)
    return body


def build_relative(walk, faces):
    """The usual way: a relative key per frame, its value keyed up and down."""
    import bpy

    from body4d_blender.scene.mesh import still_mesh, to_blender

    mesh = still_mesh("body", "bench", walk[0], faces)
    body = bpy.data.objects.new("body", mesh)
    body.shape_key_add(name="Basis", from_mix=False)
    for i, vertices in enumerate(walk):
        key = body.shape_key_add(name=f"f{i:06d}", from_mix=False)
        key.data.foreach_set("co", to_blender(vertices).ravel())
        for frame, value in ((i, 0.0), (i + 1, 1.0), (i + 2, 0.0)):
            key.value = value
            key.keyframe_insert("value", frame=frame)
    bpy.context.scene.collection.objects.link(body)
    return body


def write_take(folder: Path, walk, faces) -> Path:
    from body4d_engine.take import Take

    n, path = len(walk), folder / "bench.take"
    clip = {"name": "bench", "path": None, "fingerprint": "", "width": 1280, "height": 720, "fps": [24, 1], "frame_count": n, "start": 0,
            "end": n, "step": 1, "has_audio": False, "proxy": None}
    with Take.create(path, clip, "bench") as take:
        take.set_people([{"id": 1, "name": "body", "color": [0.5, 0.5, 0.5], "prompts": {}, "height_m": None}])
        take.begin("import", "b" * 16)
        for name, dtype, records in (("vertices", "f4", walk), ("root", "f4", np.zeros((n, 3))), ("state", "u1", np.ones(n))):
            take.create_array("people/1", name, dtype, records.shape[1:], pc2=name == "vertices")
            take.append("people/1", name, records)
        take.write_npz("people/1/body.import.npz", faces=faces)
        take.write_npz("camera.npz", focal_px=np.full(n, 1000.0), principal_px=np.full((n, 2), (640.0, 360.0)), method="user", note="")
        take.commit({})
        take.finish()
    return path


def peak_mb() -> float:
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform != "darwin" else 1 << 20)


def measure(way: str, frames: int) -> dict:
    """In this process: one way to build, then playing, then the error. Prints JSON."""
    import bpy

    from body4d_blender.scene import build_take

    walk, faces = motion(frames)
    with tempfile.TemporaryDirectory() as folder:
        path = write_take(Path(folder), walk, faces) if way in ("cache", "take") else None
        before = peak_mb()
        times = []
        for _ in range(REPEATS):
            bpy.ops.wm.read_homefile(use_empty=True, use_factory_startup=True)
            started = time.perf_counter()
            if path:
                body = next(o for o in build_take(path, mesh_cache=way == "cache").objects if o.type == "MESH")
            else:
                body = (build_keys if way == "keys" else build_relative)(walk, faces)
            times.append(time.perf_counter() - started)
        scene = bpy.context.scene
        scene.frame_set(1)
        at = range(1, frames, 1 if way != "relative" else max(1, frames // 60))
        started = time.perf_counter()
        for i in at:
            scene.frame_set(1 + i)
        played = (time.perf_counter() - started) / len(at)
        error, co = 0.0, np.empty(walk[0].size, np.float32)
        for i in at:
            scene.frame_set(1 + i)
            body.evaluated_get(bpy.context.evaluated_depsgraph_get()).data.vertices.foreach_get("co", co)
            x, z, y = co.reshape(-1, 3).T
            error = max(error, np.abs(np.stack([x, -y, z], -1) - walk[i]).max())
    return {"bpy": bpy.app.version_string, "first_s": times[0], "best_s": min(times), "played_ms": played * 1e3, "error": float(error),
            "peak_mb": peak_mb(), "before_mb": before}


def verdict(found: dict[str, dict]) -> tuple[list[str], dict[str, float], bool]:
    """What the figures of all ways come to: lines that say it, the ratios, and whether all is as wanted."""
    ratios = {name: found["relative"][key] / found["keys"][key]
              for name, key in (("faster_first", "first_s"), ("faster_best", "best_s"), ("cheaper_played", "played_ms"))}
    error = max(found[way]["error"] for way in ("keys", "cache", "take"))
    lines, good = [], error == 0
    for name, words, least in (("faster_first", "times faster, first build", FASTER_BUILT), ("faster_best", f"times faster, best of {REPEATS} builds", FASTER_BUILT),
                               ("cheaper_played", "times cheaper played", CHEAPER_PLAYED)):
        good &= ratios[name] >= least
        lines.append(f"{ratios[name]:7.1f} {words}: {'as wanted' if ratios[name] >= least else 'FALLS SHORT'} (at least {least})")
    lines.append(f"{error:7.1g} largest error: {'as wanted' if error == 0 else 'FALLS SHORT'} (exactly 0)")
    return lines, ratios, good


def command(program: str) -> list[str]:
    """What runs this script in that Python or Blender."""
    if "blender" in Path(program).stem.lower():
        return [program, "--background", "--factory-startup", "--python-exit-code", "1", "--python", __file__, "--"]
    return [program, __file__]


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("programs", nargs="*", default=[sys.executable], metavar="PROGRAM")
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--json", type=Path, metavar="FILE")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    if options.way:
        print("RESULT " + json.dumps(measure(options.way, options.frames)))
        return 0
    names = {"keys": "Body4D keys", "relative": "data.foreach_set, relative", "cache": "whole take, mesh cache", "take": "whole take, keys"}
    print(f"18,439 vertices x {options.frames} frames\n")
    print(f"{'bpy':<12}{'way':<28}{'first s':>9}{'best s':>9}{'played ms':>11}{'max error':>11}{'peak MB':>9}  of which the test's array and bpy")
    results, good = {}, True
    for program in options.programs:
        found = {}
        for way in WAYS:
            done = subprocess.run([*command(program), "--way", way, "--frames", str(options.frames)], capture_output=True, text=True)
            lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
            if not lines:
                print(f"{program}: {(done.stderr or done.stdout)[-800:]}", file=sys.stderr)
                return 1
            r = found[way] = json.loads(lines[0][7:])
            print(f"{r['bpy']:<12}{names[way]:<28}{r['first_s']:9.3f}{r['best_s']:9.3f}{r['played_ms']:11.3f}{r['error']:11.1e}"
                  f"{r['peak_mb']:9.0f}{r['before_mb']:9.0f}", flush=True)
        lines, ratios, fine = verdict(found)
        good &= fine
        print("".join(f"{'':<12}{line}\n" for line in lines), flush=True)
        results[found["keys"]["bpy"]] = {**found, **ratios}
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]))
