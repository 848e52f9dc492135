# SPDX-License-Identifier: Apache-2.0
"""What `scripts/render_clips.py` draws is what its truth says."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import bpy
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
WIDTH, FRAMES = 224, 2
BAKE = f"""
import sys, render_clips
from pathlib import Path
from rendering import scenes, truth
for number in (1, 2):
    scene = scenes.build("crossing", 7, {FRAMES}, {WIDTH})
    folder = Path(sys.argv[1]) / str(number)
    folder.mkdir()
    truth.write(scene, folder)
    render_clips.bake(scene, folder / "work", 1, silhouette=number == 1)
"""


@pytest.fixture(scope="module")
def baked(tmp_path_factory) -> Path:
    """The same small scene twice, in folders 1 (to be drawn as silhouettes) and 2 (as it is)."""
    python = os.environ.get("BODY4D_ENGINE_PYTHON") or (sys.executable if importlib.util.find_spec("scipy") else None)
    if python is None:
        pytest.skip("needs BODY4D_ENGINE_PYTHON, a Python with the engine's dependencies, to move the people")
    folder = tmp_path_factory.mktemp("rendered")
    path = os.pathsep.join([str(ROOT / "scripts"), str(ROOT), str(ROOT / "packages" / "body4d-lite-models"), os.environ.get("PYTHONPATH", "")])
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONHOME"} | {"PYTHONPATH": path}
    done = subprocess.run([python, "-c", BAKE, str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def blender():
    spec = importlib.util.spec_from_file_location("rendering_blender", ROOT / "scripts" / "rendering" / "blender.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def pixels(path: Path) -> np.ndarray:
    """(H, W, 4) 0..1 from the top, as stored."""
    image = bpy.data.images.load(str(path))
    image.colorspace_settings.name = "Non-Color"
    width, height = image.size
    values = np.empty(width * height * 4, np.float32)
    image.pixels.foreach_get(values)
    bpy.data.images.remove(image)
    return values.reshape(height, width, 4)[::-1]


def pictures(folder: Path) -> list[np.ndarray]:
    """Each frame put together from its parts."""
    out = []
    for frame in range(FRAMES):
        picture = pixels(folder / "empty.png").copy()
        for path in folder.glob(f"{frame:06d}_*.png"):
            x, y = map(int, path.stem.split("_")[1:])
            part = pixels(path)
            picture[y : y + len(part), x : x + part.shape[1]] = part
        out.append(picture)
    return out


def test_people_are_drawn_where_the_truth_says(baked, blender):
    blender.render(baked / "1" / "work")
    for frame, picture in enumerate(pictures(baked / "1" / "work" / "frames")):
        drawn, true = picture[..., 3] > 0.5, pixels(baked / "1" / "masks" / f"{frame:06d}.png")[..., 0] > 0
        assert true.sum() > 500
        assert (drawn & true).sum() / (drawn | true).sum() > 0.9
        for person in (1, 2):
            with np.load(baked / "1" / f"person_{person}.npz") as file:
                trunk = [i for i, name in enumerate(file["joint_names"]) if name.endswith(("shoulder", "hip", "knee"))]
                points = (file["joints_m"][frame, trunk] @ file["R"][frame].T + file["t"][frame]) @ file["K"].T
            column, row = (points[:, :2] / points[:, 2:]).astype(int).T
            inside = (column >= 0) & (column < drawn.shape[1]) & (row >= 0) & (row < drawn.shape[0])
            assert inside.any() and drawn[row[inside], column[inside]].all()


def test_the_parts_of_a_picture_meet_without_a_seam(baked, blender):
    """What is drawn again lies exactly over the empty picture, and the people are nowhere else."""
    work = baked / "2" / "work"
    blender.render(work)
    empty = pixels(work / "frames" / "empty.png")[..., :3]
    for frame, picture in enumerate(pictures(work / "frames")):
        changed = np.abs(picture[..., :3] - empty).max(-1) > 0.15
        person = pixels(baked / "2" / "masks" / f"{frame:06d}.png")[..., 0] > 0
        assert changed[person].mean() > 0.5
        away = np.ones_like(person)
        for path in (work / "frames").glob(f"{frame:06d}_*.png"):
            x, y = map(int, path.stem.split("_")[1:])
            height, width = pixels(path).shape[:2]
            away[y : y + height, x : x + width] = False
            edge = np.abs(picture[y, x : x + width, :3] - empty[y, x : x + width]).mean()
            assert edge < 0.1  # the same wall or ground, but for the noise of few samples
        assert not (person & away).any()


def test_the_same_seed_gives_the_same_truth(baked):
    for name in ("person_1.npz", "person_2.npz", "tracking.npz"):
        with np.load(baked / "1" / name) as one, np.load(baked / "2" / name) as two:
            assert one.files == two.files
            assert all(np.array_equal(one[key], two[key], equal_nan=one[key].dtype.kind == "f") for key in one.files)
