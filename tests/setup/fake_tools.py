# SPDX-License-Identifier: Apache-2.0
"""Stands in for `python -m body4d_engine` and for scripts/build_scene.py. What it does depends on the video's name.

    fake_tools.py run VIDEO --out TAKE --summary-json FILE [...]
    fake_tools.py export TAKE --layout overlay|report --out FILE [...]
    fake_tools.py scene TAKE --out FILE [...]
"""

import json
import os
import signal
import sys
import time
from pathlib import Path


def option(name: str) -> str:
    return sys.argv[sys.argv.index(name) + 1]


def run(video: Path, take: Path, report: Path) -> int:
    if "no_people" in video.name:
        error = {"message": f"Nobody was found in {video.name}.", "hint": "Click on a person.", "code": "nobody"}
        report.write_text(json.dumps({"error": error}), encoding="utf-8")
        return 1
    if "broken" in video.name:
        raise ValueError("a bug, with its traceback")
    if "killed" in video.name:
        os.kill(os.getpid(), signal.SIGKILL)
    take.mkdir(exist_ok=True)
    data = video.read_bytes() if video.is_file() else b""
    (take / "take.json").write_text(json.dumps({"clip": {"path": str(video.resolve()), "name": video.name, "bytes": len(data)}}), encoding="utf-8")
    (take / "arguments.json").write_text(json.dumps(sys.argv[1:]), encoding="utf-8")
    if "slow" in video.name:
        (take / "pid").write_text(str(os.getpid()))
        try:
            time.sleep(60)
        except KeyboardInterrupt:
            (take / "stopped").write_text("committed what was done")
            return 130
    print("track: frame 3 of 4", file=sys.stderr)
    person = {"id": 1, "name": "Ana", "visible": 2, "occluded": 1, "filled": 0, "absent": 1}
    report.write_text(json.dumps({
        "frames": 4, "people": [person], "focal": {"px": 1623.4, "method": "assumed", "note": "0.8 x the diagonal"},
        "seconds_per_frame": {"track": 0.125, "refine": 0.25}, "proxy": {"file": "proxy.mp4", "reasons": ["it is rotated by 90 degrees"]},
        "notices": [{"stage": "track", "code": "lost", "message": "Ana was lost", "frame": 10 * i, "last_frame": 10 * i + 2} for i in range(5)]
        + [{"stage": "camera", "code": "focal_assumed", "message": "The focal length is assumed: 1623 px. Give --focal-px."}],
    }), encoding="utf-8")
    return 0


def scene(take: Path, out: Path) -> int:
    if "no_scene" in take.name:
        print("error: the take has no meshes", file=sys.stderr)
        return 1
    out.write_text(f"scene of {take.name} {'cached' if '--mesh-cache' in sys.argv else 'keys'}", encoding="utf-8")
    print("note: the clip is not there any more\nnote: The focal length is assumed, not measured: 1623 px")
    return 0


def export(take: Path, out: Path) -> int:
    layout = option("--layout")
    if f"no_{layout}" in take.name:
        print("body4d: the clip is gone", file=sys.stderr)
        return 1
    out.write_text(layout, encoding="utf-8")
    if layout == "report":
        plots = out.with_name(out.name.replace("_report.html", "_plots"))
        plots.mkdir(exist_ok=True)
        (plots / "person_1.png").write_bytes(b"png")
    return 0


if __name__ == "__main__":
    command, subject = sys.argv[1], Path(sys.argv[2])
    out = Path(option("--out"))
    sys.exit(run(subject, out, Path(option("--summary-json"))) if command == "run" else scene(subject, out) if command == "scene" else export(subject, out))
