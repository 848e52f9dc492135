# SPDX-License-Identifier: Apache-2.0
"""From videos of people to .blend files in which those people move.

    python scripts/convert.py VIDEO... [--out DIR]
    python scripts/convert.py --demo

For each video: NAME.blend, NAME.take (all results; running again goes on from it), NAME_overlay.mp4 (the meshes over the footage) and
NAME_report.html (how far to trust them), with its timelines in NAME_plots.
Sets up its own environment on first use. Runs on any Python from 3.8 on, as long as a 3.11 or 3.13 is on the machine as well.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import deque
from itertools import count
from pathlib import Path
from typing import Deque, Dict, List, NamedTuple, Optional, Tuple

import full_backend
import pythons
import setup_env
from pythons import SetupError
from setup_env import ROOT, Step
from summary import failure_text, summary_text

OLDEST_BLENDER = (4, 2)
DEMO = "body4d_demo.mp4"


class Failure(Exception):
    """Why one video was not converted."""


class Job(NamedTuple):
    """One video and where its results go."""

    video: Path
    folder: Path
    name: str

    @property
    def take(self) -> Path:
        return self.folder / (self.name + ".take")

    @property
    def blend(self) -> Path:
        return self.folder / (self.name + ".blend")

    @property
    def overlay(self) -> Path:
        return self.folder / (self.name + "_overlay.mp4")

    @property
    def report(self) -> Path:
        return self.folder / (self.name + "_report.html")

    @property
    def plots(self) -> Path:
        return self.folder / (self.name + "_plots")


class Tools(NamedTuple):
    """Command lines: the engine, and Blender up to the script's own arguments. And what each finds its packages by."""

    engine: List[str]
    blender: List[str]
    environment: Dict[str, str]


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser("convert.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("videos", nargs="*", type=Path, metavar="VIDEO", help="a video file, or a folder of images")
    top.add_argument("--demo", action="store_true", help="convert a clip of two people that is downloaded once (9 MB)")
    top.add_argument("--out", type=Path, metavar="DIR", help="where the results go; else beside each video, --demo into the current folder")
    top.add_argument("--blender", type=Path, metavar="PATH", help="an installed Blender, 4.2 or newer, in place of a downloaded one")
    top.add_argument("--mesh-cache", action="store_true", help="the .blend plays the meshes from the take instead of holding shape keys")
    top.add_argument("--no-overlay", action="store_true")
    top.add_argument("--no-report", action="store_true")
    top.add_argument("--fresh", action="store_true", help="forget what an earlier run left")
    run = top.add_argument_group("for the engine", "`python scripts/setup_env.py body4d run --help` explains them")
    run.add_argument("--backend", choices=("lite", "full"), default="lite", help="full: the large published networks; what they need is shown, then asked for")
    run.add_argument("--people", metavar="auto|FILE.json")
    run.add_argument("--click", action="append", default=[], metavar="ID:FRAME,X,Y[,-]")
    run.add_argument("--box", action="append", default=[], metavar="ID:FRAME,X0,Y0,X1,Y1")
    focal = run.add_mutually_exclusive_group()
    focal.add_argument("--focal-px", metavar="F")
    focal.add_argument("--focal-mm", metavar="F")
    run.add_argument("--height", action="append", default=[], metavar="[ID=]METRES")
    run.add_argument("--smoothing", metavar="F", help="how calm the motion is made: 0 as measured, 1 as a rule, at most 4")
    run.add_argument("--no-foot-lock", action="store_true", help="do not hold planted feet in place")
    run.add_argument("--body-only", action="store_true", help="full: hands get no look of their own, which is quicker")
    run.add_argument("--weights", type=Path, metavar="FOLDER", help="full: where its weights are")
    run.add_argument("--memory-limit", metavar="GB", help="full: how much of the device's memory it may take")
    run.add_argument("--models", choices=("ours", "official"), help="full: whose code runs the networks (ours)")
    run.add_argument("--compile", action="store_true", help="full: have torch compile the networks, which takes minutes once")
    run.add_argument("--start", metavar="S")
    run.add_argument("--end", metavar="E")
    run.add_argument("--step", metavar="N")
    run.add_argument("--image-fps", metavar="R", help="frames per second of a folder of images")
    return top


def engine_options(options: argparse.Namespace) -> List[str]:
    """What `body4d run` is to be told beside the video and the take."""
    given = []
    for name in ("backend", "people", "focal_px", "focal_mm", "smoothing", "weights", "memory_limit", "models", "start", "end", "step", "image_fps"):
        value = getattr(options, name)
        given += ["--%s=%s" % (name.replace("_", "-"), value)] if value is not None else []
    for name in ("click", "box", "height"):
        given += ["--%s=%s" % (name, value) for value in getattr(options, name)]
    return given + ["--%s" % name.replace("_", "-") for name in ("no_foot_lock", "body_only", "compile", "fresh") if getattr(options, name)]


def plan(videos: List[Path], out: Optional[Path]) -> List[Job]:
    """A job for each different video; no two share a name, and none takes a name that other work has already."""
    jobs: List[Job] = []
    for video in dict.fromkeys(Path(os.path.abspath(str(video))) for video in videos):
        folder = Path(os.path.abspath(str(out))) if out else video.parent
        stem = video.name if video.is_dir() else video.stem
        taken = {job.name.casefold() for job in jobs if job.folder == folder}
        for number in count(1):
            job = Job(video, folder, stem if number == 1 else "%s_%d" % (stem, number))
            if job.name.casefold() not in taken and is_free(job):
                jobs.append(job)
                break
    return jobs


def is_free(job: Job) -> bool:
    """May this job use its name: nothing is there, or the results of the same video are."""
    try:
        clip = json.loads((job.take / "take.json").read_text(encoding="utf-8"))["clip"]
    except FileNotFoundError:
        return job.take.exists() or not job.blend.exists()  # a .blend without a take is someone's own work
    except (OSError, ValueError, KeyError, TypeError):
        return True  # damaged: the engine will say so
    if os.path.normcase(str(clip.get("path"))) == os.path.normcase(os.path.realpath(str(job.video))):
        return True
    return job.video.is_file() and (clip.get("name"), clip.get("bytes")) == (job.video.name, job.video.stat().st_size)


def installed_blender(path: Path) -> Path:
    """The program inside what --blender names: the file, its folder, or a Mac's Blender.app. Raises SetupError."""
    inside = ("blender", "blender.exe", "Contents/MacOS/Blender")
    found = path if path.is_file() else next((path / name for name in inside if (path / name).is_file()), None)
    if found is None and not path.exists() and shutil.which(str(path)):
        found = Path(str(shutil.which(str(path))))
    if found is None:
        raise SetupError("There is no Blender at %s." % path, "Pass the program itself, for example /opt/blender-4.5/blender, or its folder.")
    try:
        text = subprocess.run([str(found), "--background", "--version"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              universal_newlines=True, timeout=120).stdout
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SetupError("%s does not start: %s." % (found, error), "Pass an installed Blender, 4.2 or newer.")
    version = re.search(r"^Blender (\d+)\.(\d+)", text, re.MULTILINE)
    if not version:
        raise SetupError("%s does not say that it is Blender." % found, "Pass an installed Blender, 4.2 or newer.")
    if (int(version.group(1)), int(version.group(2))) < OLDEST_BLENDER:
        raise SetupError("%s is Blender %s.%s." % (found, *version.groups()), "Body4D needs 4.2 or newer.")
    return found


def set_up(python: pythons.Python, blender: Optional[Path], options: argparse.Namespace) -> Tools:
    """Everything that conversions need, downloaded and built where it is not there yet. Raises SetupError."""
    variables = setup_env.child_environment(*setup_env.code(python))
    engine = full_backend.environment(python, variables, options.weights) if options.backend == "full" else setup_env.engine(python)
    script = str(ROOT / "scripts" / "build_scene.py")
    if blender:
        command = [str(blender), "--background", "--factory-startup", "--python-exit-code", "1", "--python", script, "--"]
    else:
        command = [str(setup_env.executable(setup_env.blender(python))), script]
    return Tools([str(setup_env.executable(engine)), "-m", "body4d_engine"], command, variables)


def convert(job: Job, tools: Tools, options: argparse.Namespace) -> Tuple[str, str]:
    """Make one video's results: what was made, and which of it was not and why, as text. Raises Failure where there is no take."""
    started = time.monotonic()
    if not job.video.exists():
        raise Failure("there is no such file or folder.")
    try:
        job.folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=str(job.folder)):
            pass
    except OSError as error:
        raise Failure("%s cannot be written: %s. Pass --out DIR with a folder that can." % (job.folder, error.strerror or error))
    with tempfile.TemporaryDirectory(prefix="body4d-") as work:
        summary = run_engine(job, tools, options, Path(work) / "summary.json")
    frames, extra, notes, files, problems = max(summary.get("frames") or 0, 1), {}, [], [job.take], []
    steps = [("scene", build_blend, [job.blend])]
    steps += [] if options.no_overlay else [("overlay", export_overlay, [job.overlay])]
    steps += [] if options.no_report else [("report", export_report, [job.report, job.plots])]
    for what, make, results in steps:
        began = time.monotonic()
        try:
            notes += make(job, tools, options)
            files += [path for path in results if path.exists()]  # where nobody was found there are no plots
        except Failure as failure:
            problems.append(str(failure))
        extra[what] = (time.monotonic() - began) / frames
    return summary_text(summary, extra, notes, files, time.monotonic() - started), "\n  ".join(problems)


def run_engine(job: Job, tools: Tools, options: argparse.Namespace, report: Path) -> dict:
    code, tail = run_child(tools.engine + ["run", str(job.video), "--out", str(job.take), "--summary-json", str(report)] + engine_options(options),
                           tools.environment, shown=True)
    summary = json.loads(report.read_text(encoding="utf-8")) if report.is_file() and report.stat().st_size else {}
    if code != 0 or "error" in summary:
        raise Failure(failure_text(code, summary.get("error"), tail))
    return summary


def build_blend(job: Job, tools: Tools, options: argparse.Namespace) -> List[str]:
    """Make the .blend, unless it is there and the take has not changed since. An earlier one that the user saved is kept beside it.

    Returns what to tell the user.
    """
    made = Made(job, job.blend, {"mesh_cache": options.mesh_cache})
    if made.current:
        return ["%s is up to date and was left as it is" % job.blend.name]
    aside = job.folder / (".%s.blend.old" % job.name)
    if job.blend.exists() and not made.untouched:
        aside = next(path for path in (job.folder / ("%s_before%s.blend" % (job.name, number or "")) for number in count()) if not path.exists())
    if job.blend.exists():
        os.replace(str(job.blend), str(aside))
    try:
        with Step("Building %s" % job.blend.name):
            code, tail = run_child(tools.blender + [str(job.take), "--out", str(job.blend)] + (["--mesh-cache"] if options.mesh_cache else []),
                                   tools.environment, shown=False)
            if code != 0 or not job.blend.is_file():
                raise Failure("%s was not built: %s" % (job.blend.name, failure_text(code, None, tail)))
    except BaseException:
        if aside.exists() and not job.blend.exists():
            os.replace(str(aside), str(job.blend))
        raise
    made.remember()
    notes = [line[len("note: "):] for line in tail if line.startswith("note: ")]
    if aside.name.startswith("."):
        if aside.exists():
            aside.unlink()
        return notes
    return notes + ["the .blend that was there is kept as %s" % aside.name]


def export_overlay(job: Job, tools: Tools, options: argparse.Namespace) -> List[str]:
    return export(job, tools, "overlay", job.overlay)


def export_report(job: Job, tools: Tools, options: argparse.Namespace) -> List[str]:
    return export(job, tools, "report", job.report)


def export(job: Job, tools: Tools, layout: str, file: Path) -> List[str]:
    """Let the engine write the take in a layout, unless that is there and the take has not changed since."""
    made = Made(job, file, {})
    if made.current:
        return []
    code, tail = run_child(tools.engine + ["export", str(job.take), "--layout", layout, "--out", str(file), "--clip", str(job.video)],
                           tools.environment, shown=True)
    if code != 0:
        raise Failure("%s was not made: %s" % (file.name, failure_text(code, None, tail)))
    made.remember()
    return []


class Made:
    """What an earlier run made of a take, as it keeps it in the take's folder: of which take.json, with which options, and the file's size and time.

    `current`: the file is there and would be made the same again. `untouched`: it is byte for byte ours.
    """

    def __init__(self, job: Job, file: Path, options: Dict[str, bool]):
        self.file, self.note = file, job.take / "made" / (file.name + ".json")
        try:
            content = (job.take / "take.json").read_bytes()
        except OSError:
            content = b""
        self.source = {"take": hashlib.sha256(content).hexdigest(), "options": options}
        try:
            known = json.loads(self.note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        self.current = file.exists() and all(known.get(name) == value for name, value in self.source.items())
        self.untouched = file.exists() and known.get("file") == self.state()

    def state(self) -> List[int]:
        return [self.file.stat().st_size, self.file.stat().st_mtime_ns]

    def remember(self) -> None:
        self.note.parent.mkdir(parents=True, exist_ok=True)
        self.note.write_text(json.dumps({**self.source, "file": self.state()}), encoding="utf-8")


def run_child(command: List[str], environment: Dict[str, str], shown: bool) -> Tuple[int, List[str]]:
    """Run to the end: exit code and last lines of output. `shown`: the child's stderr, its progress, appears as it comes.

    Raises KeyboardInterrupt once the child has stopped, if the user asked for that.
    """
    on_terminal = shown and sys.stderr.isatty()  # bars need the terminal itself; then an error is read there too
    process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if shown else subprocess.PIPE,
                               stderr=None if on_terminal else subprocess.PIPE if shown else subprocess.STDOUT,
                               universal_newlines=True, encoding="utf-8", errors="replace")
    tail: Deque[str] = deque(maxlen=40)
    reader = threading.Thread(target=_follow, args=(process.stderr if shown else process.stdout, tail, shown), daemon=True)
    reader.start()
    try:
        code = process.wait()
    except KeyboardInterrupt:
        stop(process)
        raise
    reader.join(timeout=5)
    return code, list(tail)


def _follow(stream, tail: Deque[str], shown: bool) -> None:
    for line in stream or ():
        tail.append(line.rstrip())
        if shown:
            print(line, end="", file=sys.stderr, flush=True)


def stop(process: subprocess.Popen) -> None:
    """A Ctrl-C in a terminal reached the child as well; give it time to end well, then insist."""
    insist = [process.terminate, process.kill] if os.name == "nt" else [lambda: process.send_signal(signal.SIGINT), process.terminate, process.kill]
    try:
        for action in [lambda: None] + insist:
            action()
            try:
                process.wait(timeout=4)
                return
            except subprocess.TimeoutExpired:
                continue
    except KeyboardInterrupt:
        process.kill()
    process.wait()


def demo(out: Path, python: pythons.Python) -> Path:
    """The demo clip as a file beside its results: a .blend refers to its clip."""
    clip = setup_env.demo_clip(python)
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(str(clip), str(out / DEMO))
    except OSError as error:
        raise SetupError("%s cannot be written: %s." % (out, error.strerror or error), "Pass --out DIR with a folder that can.")
    return out / DEMO


def main(arguments: List[str]) -> int:
    """Exit status: 0 all done, 1 a video failed or the set-up did, 2 wrong usage, 130 stopped by the user."""
    top = parser()
    options = top.parse_args(arguments)
    if not options.videos and not options.demo:
        top.error("name a video, or try --demo")
    if len(options.videos) + options.demo > 1 and (options.click or options.box or options.people not in (None, "auto")):
        top.error("--click, --box and --people FILE are about one video: convert videos with people of your choice one at a time")
    if options.out and options.out.exists() and not options.out.is_dir():
        top.error("--out %s is not a folder" % options.out)
    try:
        blender = installed_blender(options.blender) if options.blender else None
        python = pythons.choose(blender)
        pythons.restart(python, __file__, arguments)
        tools = set_up(python, blender, options)
        videos = options.videos + ([demo(options.out or Path.cwd(), python)] if options.demo else [])
    except SetupError as error:
        print(error.text, file=sys.stderr)
        return 1
    jobs, failures = plan(videos, options.out), []
    for number, job in enumerate(jobs, 1):
        print("\n%s%s" % ("[%d of %d] " % (number, len(jobs)) if len(jobs) > 1 else "", job.video), flush=True)
        stem = job.video.name if job.video.is_dir() else job.video.stem
        if job.name != stem:
            print("  results are named %s: %s is taken in %s" % (job.name, stem, job.folder), flush=True)
        try:
            done, problem = convert(job, tools, options)
            print(done, flush=True)
        except Failure as failure:
            problem = str(failure)
        if problem:
            failures.append((job, problem))
            print("%s failed: %s" % (job.video.name, problem), file=sys.stderr, flush=True)
    if failures and len(jobs) > 1:
        print("\n%d of %d videos were converted. Not converted:" % (len(jobs) - len(failures), len(jobs)), file=sys.stderr)
        for job, why in failures:
            print("  %s: %s" % (job.video, why), file=sys.stderr)
    return 1 if failures else 0


def interrupted(*_) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupted)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # a console that cannot show a name must not end the work
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        print("\nStopped. What is done is kept; run the same command again to go on.", file=sys.stderr)
        sys.exit(130)
