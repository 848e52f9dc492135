# SPDX-License-Identifier: Apache-2.0
"""A take becomes a .blend.

python scripts/build_scene.py TAKE --out FILE.blend [--mesh-cache] [--match-scene]              with the bpy module
blender -b --python scripts/build_scene.py -- TAKE --out FILE.blend [...]                      with Blender
blender -b MY.blend --python scripts/build_scene.py -- TAKE --out FILE.blend [...]             into a scene that exists
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import bpy  # noqa: E402

from body4d_blender.scene.file import new_file, save_blend  # noqa: E402
from body4d_engine.take import TakeError  # noqa: E402


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="build_scene.py", description="A take becomes a .blend.")
    parser.add_argument("take", metavar="TAKE", type=Path)
    parser.add_argument("--out", metavar="FILE.blend", type=Path, help="NAME.blend beside the take")
    parser.add_argument("--mesh-cache", action="store_true", help="play the take's point cache instead of shape keys")
    parser.add_argument("--match-scene", action="store_true", default=None, help="change the settings of a scene that holds something, too")
    options = parser.parse_args(argv)
    started = time.perf_counter()
    if not bpy.data.filepath:
        new_file()
    try:
        out = save_blend(options.take, options.out or options.take.absolute().with_suffix(".blend"), match_scene=options.match_scene,
                         mesh_cache=options.mesh_cache, report=lambda text: print(f"note: {text}"))
    except (TakeError, RuntimeError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"saved {out} ({out.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - started:.1f} s)", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[sys.argv.index("--") + 1 :] if "--" in sys.argv else sys.argv[1:]))
