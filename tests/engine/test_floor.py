# SPDX-License-Identifier: Apache-2.0
"""The floor from standing feet: a camera whose tilt and height are known, people of wrong sizes, lines, too few feet, a camera that moves."""

import subprocess
import sys

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.floor import FEET, Floor, find_floor, floor_matrix
from body4d_engine.take import State, Take

NAMES = (*FEET, "left_shoulder", "right_shoulder", "left_ankle", "right_ankle")
SOLE_M = 0.02
EACH = 5  # samples that a contact lasts


def stood_take(path, people, pitch, roll, height_m, noise_m=0.0, warp=(0.0, 0.0), settings=None):
    """A take of people who stand here and there on a floor. people: (places (N, 2) metres on the floor, right and forward of the camera; size of the body
    beside the true one)."""
    up = Floor(pitch, roll, height_m, 0, 0, 0, 0).up
    turn = floor_matrix(pitch, roll, 0.0)[:3, :3].T  # world to Blender's camera
    total, random = max(len(places) for places, _ in people) * EACH, np.random.default_rng(1)
    clip = {"name": "made.mp4", "path": None, "bytes": 1, "fingerprint": "f", "width": 640, "height": 360, "fps": [30, 1], "frame_count": total, "start": 0,
            "end": total, "step": 1, "shots": [0]}
    take = Take.create(path, clip, "lite", settings or {})
    take.set_people([{"id": number, "name": "A", "color": [0, 0, 0]} for number in range(1, len(people) + 1)])
    take.begin("prepare", "p" * 16)
    take.create_array("camera_motion", "warp", "f4", (3, 3))
    take.append("camera_motion", "warp", np.array([[[1, 0, warp[0]], [0, 1, warp[1]], [0, 0, 1]]] * total))
    take.finish()
    take.begin("refine", "r" * 16)
    for number, (places, size) in enumerate(people, 1):
        group = f"people/{number}"
        for name, dims in {"keypoints_m": (len(NAMES), 3), "root": (3,), "vertices": (2 * len(FEET), 3), "contact": (4,)}.items():
            take.create_array(group, name, "f4", dims, pc2=name == "vertices")
        take.create_array(group, "state", "u1", ())
        take.write_npz(f"{group}/body.refine.npz", keypoint_names=np.array(NAMES), faces=np.zeros((1, 3), np.int32))
        for step in range(total // EACH):
            here = step < len(places)
            world = np.array([*(places[step] if here else (0, 5)), -height_m + SOLE_M])
            blender = turn @ world
            root = size * (np.array([blender[0], -blender[2], blender[1]]) + noise_m * random.standard_normal() * up)
            points = np.zeros((len(NAMES), 3)) + np.array([1.4 * up if "shoulder" in name else 0 * up for name in NAMES])
            points[1:4] += 5.0  # only the left heel stands
            skin = np.concatenate([points[:4], points[:4] - SOLE_M * size * up])
            contact = np.zeros((EACH, 4))
            contact[:-1, 0] = here
            for name, values in {"keypoints_m": points, "root": root, "vertices": skin}.items():
                take.append(group, name, np.repeat(values[None], EACH, 0))
            take.append(group, "contact", contact)
            take.append(group, "state", np.full(EACH, State.VISIBLE))
    take.finish()
    return take


def spots(seed=0, count=8):
    return np.random.default_rng(seed).uniform((-1.5, 3), (1.5, 6), (count, 2))


@pytest.mark.parametrize("pitch, roll, height", [(0, 0, 1.5), (-12, 3, 2.2), (8, -10, 0.6)])
def test_an_exact_camera_is_found_exactly(tmp_path, pitch, roll, height):
    with stood_take(tmp_path / "a.take", [(spots(), 1.0)], np.radians(pitch), np.radians(roll), height) as take:
        floor = find_floor(take)
    assert np.degrees([floor.pitch, floor.roll]) == pytest.approx([pitch, roll], abs=0.02) and floor.height_m == pytest.approx(height, abs=0.003)
    assert floor.contacts == 8 and floor.spread_m < 1e-3
    up = floor_matrix(floor.pitch, floor.roll, floor.height_m)[:3, :3] @ [floor.up[0], floor.up[2], -floor.up[1]]
    np.testing.assert_allclose(up, [0, 0, 1], atol=1e-12)


def test_sizes_that_are_wrong_do_not_tilt_it(tmp_path):
    people = [(spots(1) + (0, 3), 0.85), (spots(2), 1.0), (spots(3) - (0, 1), 1.1)]
    with stood_take(tmp_path / "a.take", people, -0.1, 0.02, 1.6, noise_m=0.01) as take:
        floor = find_floor(take)
    assert np.degrees([floor.pitch + 0.1, floor.roll - 0.02]) == pytest.approx([0, 0], abs=0.7) and abs(floor.height_m - 1.6) < 0.05
    assert 0.1 < np.degrees(floor.pitch_error) < 1.5 and 0.003 < floor.spread_m < 0.03


def test_known_heights_are_believed(tmp_path):
    people = [(spots(1), 0.8), (spots(2), 1.0), (spots(3), 0.8)]
    with stood_take(tmp_path / "a.take", people, -0.1, 0.02, 1.6, settings={"heights": {"2": 1.8}}) as take:
        assert find_floor(take).height_m == pytest.approx(1.6, abs=0.02)


def test_a_foot_on_a_chair_does_no_harm(tmp_path):
    with stood_take(tmp_path / "a.take", [(spots(count=12), 1.0)], -0.1, 0.0, 1.5) as take:
        file = take.file_of("people/1", "root")
        root = np.fromfile(file, "<f4").reshape(-1, 3)
        root[:EACH, 1] -= 0.5
        root.tofile(file)
        floor = find_floor(take)
    assert np.degrees(floor.pitch + 0.1) == pytest.approx(0, abs=0.5) and floor.height_m == pytest.approx(1.5, abs=0.03)


@pytest.mark.parametrize("places, warp, code", [
    (spots(count=3), (0, 0), "floor_few_feet"), (np.column_stack([np.linspace(-1, 1, 12), np.full(12, 4.0)]), (0, 0), "floor_line"),
    (spots(), (5, 0), "floor_camera_moves")])
def test_what_says_too_little_is_refused(tmp_path, places, warp, code):
    with stood_take(tmp_path / "a.take", [(places, 1.0)], -0.1, 0.0, 1.5, warp=warp) as take, pytest.raises(Body4DError) as error:
        find_floor(take)
    assert error.value.code == code and error.value.hint


def test_a_take_without_contacts_has_no_floor(tmp_path):
    with stood_take(tmp_path / "a.take", [(spots(), 1.0)], 0, 0, 1.5) as take:
        del take.to_json()["stages"]["refine"]["arrays"]["people/1/contact"]
        with pytest.raises(Body4DError, match="0 times"):
            find_floor(take)


def test_blender_may_import_it():
    code = "import sys, body4d_engine.floor; print([m for m in ('scipy', 'cv2', 'av') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip() == "[]"
