# SPDX-License-Identifier: Apache-2.0
"""How quickly the engine answers a click: starts `serve`, opens a clip and measures over the pipe.

    python scripts/bench_serve.py VIDEO [--clicks 20]

Prints the time from a request to its answer with everything unpacked: `detect`, a click after it, the first click on a frame never looked at before
(decoding included), another one there, a click on nobody, and from a `cancel` in each stage to the end of the run.
"""

import argparse
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from body4d_engine import wire  # noqa: E402
from body4d_engine.clip_files import identify  # noqa: E402


class Engine:
    """A `serve` of this checkout."""

    def __init__(self, cache: str):
        self.process = subprocess.Popen([sys.executable, "-m", "body4d_engine", "serve"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        env={**os.environ, "BODY4D_CACHE": cache})
        wire.await_greeting(self.process.stdout)
        self._number = 0

    def ask(self, method: str, on_event=lambda event: None, **params):
        """(result, arrays, error or None) of a request."""
        self._number += 1
        wire.send(self.process.stdin, {"id": self._number, "method": method, "params": params})
        while True:
            message, arrays = wire.receive(self.process.stdout)
            if message.get("id") == self._number:
                return message.get("result"), arrays, message.get("error")
            if message.get("method") == "event":
                on_event(message["params"])

    def tell(self, method: str) -> None:
        """A request whose answer is not waited for."""
        wire.send(self.process.stdin, {"id": 0, "method": method})

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("video", type=Path)
    arguments.add_argument("--clicks", type=int, default=20)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        engine = Engine(cache)
        try:
            measure(engine, asked.video, asked.clicks)
        finally:
            engine.close()


def measure(engine: Engine, video: Path, clicks: int) -> None:
    begun = time.perf_counter()
    engine.ask("hello", protocol=wire.PROTOCOL)
    clip = identify(video)
    engine.ask("offer", **clip)
    about = engine.ask("open", sha256=clip["sha256"])[0]["clip"]
    print(f"{about['name']}: {about['width']} x {about['height']} px, {about['frames']} frames; open after {time.perf_counter() - begun:.2f} s")
    rng = random.Random(1)
    frames = rng.sample(range(about["frames"]), min(clicks, about["frames"]))
    engine.ask("detect", frame=frames[0])
    seconds = {"detect": [], "mask after detect": [], "mask, frame not seen before": [], "mask, second click there": [], "mask, nobody there": []}

    def timed(name: str, method: str, **params):
        start = time.perf_counter()
        result, arrays, error = engine.ask(method, **params)
        if error:
            sys.exit(f"{method}: {error['message']}")
        masks = [result["mask"]] if method == "mask" else [person["mask"] for person in result["people"]]
        for mask in filter(None, masks):
            wire.unpack_mask(arrays[mask["array"]], mask["size"])
        seconds[name].append(time.perf_counter() - start)
        return result

    def click(name: str, frame: int, x: float, y: float):
        return timed(name, "mask", frame=frame, person={"id": 1, "prompts": {"clicks": [[frame, x, y, True]]}})

    aims = {}
    for frame in frames:
        people = [person for person in timed("detect", "detect", frame=frame)["people"] if person["click"]]
        aims[frame] = [person["click"] for person in people]
        for aim in aims[frame][:1]:
            click("mask after detect", frame, *aim)
    engine.ask("open", sha256=clip["sha256"])  # forgets all frames
    for frame in rng.sample(frames, len(frames)):
        for number, aim in enumerate(aims[frame]):
            click("mask, second click there" if number else "mask, frame not seen before", frame, *aim)
    for frame in frames[:5]:
        click("mask, nobody there", frame, 2, 2)
    for name, values in seconds.items():
        if values:
            print(f"{name:<28} median {1000 * statistics.median(values):4.0f} ms, worst of {len(values):2} {1000 * max(values):4.0f} ms")
    for stage in ("prepare", "track", "detail", "recover", "refine"):
        measure_cancel(engine, clip["sha256"], about["frames"], stage)


def measure_cancel(engine: Engine, sha256: str, frames: int, stage: str) -> None:
    """From a `cancel` in that stage to the end of the run. Runs go on where the one before was stopped."""
    told = []

    def on_event(event: dict) -> None:
        if event["event"] == "StageStarted" and event["stage"] == stage:
            time.sleep(0.7)  # somewhere in the middle of the work
            told.append(time.perf_counter())
            engine.tell("cancel")

    error = engine.ask("run", on_event, sha256=sha256, take="bench", range=[0, min(frames, 120), 1])[2]
    print(f"cancel in {stage:<18} {1000 * (time.perf_counter() - told[0]):4.0f} ms" if error else f"cancel in {stage:<18} too late")


if __name__ == "__main__":
    main()
