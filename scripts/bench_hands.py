#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How well hands and heads are read.

    python scripts/setup_env.py python scripts/bench_hands.py [--work FOLDER]

Hands: the footage, cameras and pipeline of bench_calibrated.py, judged on cameras 1 and 2. Truth: the 21 landmarks of each hand, triangulated from
the shipped hand landmarker's 2D in those of the four views that read the hand at that frame; used are hands of which every landmark has LEAST_VIEWS
views that agree within 15 px and whose palm has a hand's length. It shares the landmarker's idea of where a joint is, so it tests depth, pose and
whose hand it is, not a bias in the picture. Numbers per hand and frame, then the mean: distance of the 15 finger joints, seen from the wrist; the
angle between the palms' normals; the angle in the picture between the middle fingers' first bones. Beside what the pipeline does stands the same
body with relaxed fingers and the palms where the pose of arms and knuckles leaves them.

Head: renders of the bundled body whose head is turned by known angles, of builds and turns that the reference shape in fit/head.py was not made of.
The error is the rotation that is left, in degrees about the picture's axes: its mean, and one standard deviation.
"""

import argparse
import contextlib
import tempfile
import time
from pathlib import Path

import bench_calibrated as calibrated
import numpy as np
from rich.console import Console
from rich.table import Table

from body4d_engine.fit import hands
from body4d_engine.fit.detailed import Detailed
from body4d_engine.fit.head import POINTS, USED, face_rotation
from body4d_engine.fit.record import from_params, read_shape
from body4d_engine.models.anny.body import load
from body4d_engine.models.anny.pose import exp, neutral_phenotypes, pose_model
from body4d_engine.models.blazepose import Roi
from body4d_engine.models.face_landmarker import FaceLandmarker
from body4d_engine.render.rasterize import rasterize, vertex_normals
from body4d_engine.take import Take

JUDGED = (1, 2)  # cameras
LEAST_VIEWS, PALM_M = 2, (0.06, 0.13)  # metres from the wrist to the middle knuckle
SIDES = "LR"
FINGER_LANDMARKS = np.array([4 * finger + phalanx for finger in range(5) for phalanx in (1, 2, 3)])
HAND_NUMBERS = ("finger joints mm", "palm's normal deg", "fingers in the picture deg")
PICTURE, WIDE_M, FAR_M = 480, 0.42, 3.0  # px of a render, metres it shows, metres away
BACKGROUND, SKIN, LIGHT = 150, np.array([225, 180, 155]), np.array([0.25, 0.6, 0.76])
YAWS = {"up to 28 deg": (0, -14, 14, -28, 28), "45 deg": (-45, 45)}
PITCHES, ROLLS = (-14, 7), (-12, 6)  # degrees


def true_hands(takes: list[Path], views: list) -> np.ndarray:
    """World landmarks (T, 2, 21, 3) of the left and the right hand, NaN where they are not known."""
    seen = []
    for path in takes:
        with Take.open(path) as take:
            seen.append(np.array(take.by_sample(f"people/{calibrated.main_person(take)}", "hands_px", "detail"), np.float64))
    seen = np.array(seen)
    count = seen.shape[1]
    pixels, read = seen[..., :2].reshape(len(takes), count, -1, 2), (seen[..., 2] >= hands.USED).reshape(len(takes), count, -1)
    with np.errstate(divide="ignore", invalid="ignore"):  # where nobody read the hand
        points, used = calibrated.triangulate(pixels, read, views)
    points, used = points.reshape(count, 2, 21, 3), used.reshape(count, 2, 21)
    palm = np.linalg.norm(points[:, :, 9] - points[:, :, 0], axis=-1)
    known = (used >= LEAST_VIEWS).all(-1) & (palm > PALM_M[0]) & (palm < PALM_M[1])
    return np.where(known[..., None, None], points, np.nan)


def finger_joints(joint_names: list[str]) -> np.ndarray:
    """(2, 16) index of the wrist and of the 15 joints of FINGER_LANDMARKS, left and right."""
    return np.array([[joint_names.index(name) for name in (f"wrist.{side}", *(f"finger{finger}-{phalanx}.{side}" for finger in range(1, 6)
                                                                             for phalanx in (1, 2, 3)))] for side in SIDES])


def hand_errors(joints: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """joints (N, 16, 3) as `finger_joints` orders them, true landmarks (N, 21, 3), both in the camera's axes -> (N, 3) in the order of HAND_NUMBERS."""
    ours, true = joints[:, 1:] - joints[:, :1], truth[:, FINGER_LANDMARKS] - truth[:, :1]
    index, middle, little = 3, 6, 12  # the knuckles among the 15
    return np.column_stack([1000 * np.linalg.norm(ours - true, axis=-1).mean(1),
                            degrees(*(np.cross(hand[:, index], hand[:, little]) for hand in (ours, true))),
                            degrees(*((hand[:, middle + 1] - hand[:, middle])[:, :2] for hand in (ours, true)))])


def degrees(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(N,) the angle between directions (N, D)."""
    cosine = (a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))
    return np.degrees(np.arccos(np.clip(cosine, -1, 1)))


def relaxed_joints(take: Take, person: int) -> np.ndarray:
    """(T, J, 3) the joints of the fitted body as if no hand had been read."""
    with calibrated.changed(hands, USED=2.0):
        detailed = Detailed(take, person, read_shape(take, person, "refine").rig(pose_model()))
        params = take.by_sample(f"people/{person}", "params", "refine")[:]
        _, rotations, positions = detailed.pose(np.arange(len(params)), from_params(params))
    return detailed.hands.joints(rotations, positions)[0]


def judge_hands(path: Path, view, world: np.ndarray) -> tuple[int, int, np.ndarray, np.ndarray]:
    """How many hands are known, how many of these the view read, and the mean errors (3,) of what it read: by the pipeline, and relaxed."""
    with Take.open(path) as take:
        person = calibrated.main_person(take)
        read = take.by_sample(f"people/{person}", "hands_px", "detail")[:][:, :, 0, 2] >= hands.USED
        index = finger_joints([str(name) for name in take.body(person)["joint_names"]])
        joints, relaxed = np.array(take.by_sample(f"people/{person}", "joints", "refine"), np.float64), relaxed_joints(take, person)
    known = np.isfinite(world).all((2, 3))
    sample, side = np.nonzero(known & read)
    truth = view.points(world)[sample, side]
    errors = [hand_errors(found[sample[:, None], index[side]], truth).mean(0) for found in (joints, relaxed)]
    return int(known.sum()), len(sample), *errors


def bench_hands(work: Path) -> Table:
    folder = calibrated.footage()
    views = calibrated.read_views(folder / calibrated.FILES[0])
    takes = [work / f"hands_cam{view.number}.take" for view in views]
    for view, take in zip(views, takes, strict=True):
        calibrated.make(folder / calibrated.FILES[view.number], take, view, "refine" if view.number in JUDGED else "detail")
    world = true_hands(takes, views)
    table = Table("", "hands known", "read", *(f"{name}" for name in HAND_NUMBERS), title="hands, against triangulated ones; in brackets with relaxed fingers")
    for number in JUDGED:
        known, read, ours, relaxed = judge_hands(takes[number - 1], views[number - 1], world)
        table.add_row(f"camera {number}", str(known), str(read), *(f"{a:.1f} ({b:.1f})" for a, b in zip(ours, relaxed, strict=True)))
    return table


# -- heads --------------------------------------------------------------------------------------------------------------------------------------------


def builds() -> list[np.ndarray]:
    """Phenotypes of the bodies to render."""
    body, found = load(), []
    for gender, age, weight in ((0.2, 0.8, 0.4), (0.8, 0.8, 0.6), (0.35, 0.75, 0.7)):
        phenotypes = neutral_phenotypes(body)
        for name, value in (("gender", gender), ("age", age), ("weight", weight)):
            phenotypes[body.phenotypes.index(name)] = value
        found.append(phenotypes)
    return found


def turns(yaws: tuple[float, ...]) -> list[np.ndarray]:
    """Rotations (3, 3) of a head that faced the camera: about the picture's axes, first pitch, then yaw, then roll."""
    about = []
    for yaw in yaws:
        for pitch in PITCHES:
            for roll in ROLLS:
                x, y, z = (exp(np.radians(angle * axis)) for angle, axis in zip((pitch, yaw, roll), np.eye(3), strict=True))
                about.append(z @ y @ x)
    return about


def render_head(phenotypes: np.ndarray, turn: np.ndarray) -> tuple[np.ndarray, float]:
    """(PICTURE, PICTURE, 3) uint8 of a body turned about its head, and the focal length in px."""
    body = load()
    rest = body.rest(phenotypes)
    middle = rest.joints[body.joint_names.index("head")] + [0, -0.06, -0.06]
    vertices, focal = (rest.vertices - middle) @ turn.T + [0, 0, FAR_M], PICTURE / WIDE_M * FAR_M
    seen = rasterize(vertices, body.faces, focal, (PICTURE / 2, PICTURE / 2), PICTURE, PICTURE)
    light = 0.35 + 0.65 * np.clip(-vertex_normals(vertices, body.faces) @ LIGHT, 0, 1)
    picture = np.full((PICTURE * PICTURE, 3), BACKGROUND, np.uint8)
    picture[seen.pixel] = SKIN * (seen.weights * light[body.faces[seen.face]]).sum(1)[:, None]
    return picture.reshape(PICTURE, PICTURE, 3), focal


def read_head(network: FaceLandmarker, picture: np.ndarray, focal: float) -> np.ndarray | None:
    """The head's rotation (3, 3), or None where no face was read. The square is found as from frame to frame: around the landmarks before."""
    middle = PICTURE / 2
    face = max((network.detect(picture, Roi(middle, middle, PICTURE * size, 0.0)) for size in (0.6, 0.75, 0.9)), key=lambda face: face.presence)
    for _ in range(2):
        low, high = face.px[:, :2].min(0), face.px[:, :2].max(0)
        across = face.px[263, :2] - face.px[33, :2]  # the outer corners of the eyes
        face = network.detect(picture, Roi(*((low + high) / 2).tolist(), 1.5 * float((high - low).max()), float(np.arctan2(across[1], across[0]))))
    if face.presence < USED:
        return None
    return face_rotation(face.px[POINTS][None], np.array([focal]), np.full((1, 2), middle))[0]


def head_errors(people: list[np.ndarray], about: list[np.ndarray]) -> tuple[int, np.ndarray]:
    """How many heads there were, and what is left of the rotation of those that were read: (N, 3) degrees about the picture's axes."""
    network, errors = FaceLandmarker(), []
    for phenotypes in people:
        for turn in about:
            found = read_head(network, *render_head(phenotypes, turn))
            if found is not None:
                left = found @ turn.T
                errors.append(np.degrees([left[2, 1] - left[1, 2], left[0, 2] - left[2, 0], left[1, 0] - left[0, 1]]) / 2)  # small angles
    return len(people) * len(about), np.array(errors).reshape(-1, 3)


def bench_heads() -> Table:
    table = Table("turned sideways", "renders", "read", "up and down deg", "sideways deg", "tilt deg", title="head: mean error ± one standard deviation")
    for name, yaws in YAWS.items():
        count, errors = head_errors(builds(), turns(yaws))
        table.add_row(name, str(count), str(len(errors)), *(f"{values.mean():.1f} ± {values.std():.1f}" for values in errors.T))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, help="keep takes here, and do not track again what is tracked")
    options = parser.parse_args()
    started, console = time.perf_counter(), Console(width=140)
    console.print(bench_heads())
    with contextlib.ExitStack() as stack:
        work = options.work or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        work.mkdir(parents=True, exist_ok=True)
        console.print(bench_hands(work))
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
