# SPDX-License-Identifier: Apache-2.0
"""Stands in for the engine: `fake_engine.py run VIDEO --out TAKE --people auto` writes a small take, or fails as the video's name asks."""

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.blender.make_take import make_take  # noqa: E402

command, video, _, take, _, people, watch = sys.argv[1:]
assert (command, people, watch) == ("run", "auto", "--stop-with-stdin"), sys.argv
print("track 1/20", flush=True)
if "broken" in video:
    print("The file broken.mp4 is not a video. Give another.", file=sys.stderr)
    sys.exit(1)
if "endless" in video:
    while True:
        time.sleep(0.1)
make_take(Path(take), name=Path(video).name, path=video)
