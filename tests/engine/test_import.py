# SPDX-License-Identifier: Apache-2.0
"""Meshes that exist already become takes: nothing is lost on the way there and back, and what is wrong is named."""

import json
import shutil
from fractions import Fraction

import numpy as np
import pytest

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError
from body4d_engine.events import Notice, StageFinished
from body4d_engine.exports import export
from body4d_engine.imports import import_any
from body4d_engine.imports.axes import MHR_ROOT_M, MHR_VERTICES
from body4d_engine.imports.label_png import write_label_png
from body4d_engine.pipeline import run
from body4d_engine.take import State, Take

from .bodies import ball_take
from .fakes import FakeBackend
from .make_clips import make_clip

RATE = Fraction(30000, 1001)
STATES = {2: [State.ABSENT, State.VISIBLE, State.ABSENT, State.ABSENT, State.OCCLUDED, State.VISIBLE], 3: [State.VISIBLE] * 6}


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("import")
    film = make_clip(root / "film.mp4", count=6, size=(96, 64), fps=RATE)
    with open_clip(film) as clip:
        take = ball_take(root / "a.take", clip=clip.describe(), people=(2, 3), states=STATES, focal=77.5)
    list(export(take, "sam-body4d", root / "out"))
    return take, root / "out"


@pytest.fixture
def folder(exported, tmp_path):
    """A copy to spoil."""
    shutil.copytree(exported[1], tmp_path / "out")
    return tmp_path / "out"


def bring(source, out, **options):
    """The take and its events; the take is open for reading."""
    events = list(import_any(source if isinstance(source, list) else [source], out, **options))
    return Take.open(out), events


def codes(events):
    return [e.code for e in events if isinstance(e, Notice)]


def camera_space(take, person):
    return take.by_sample(f"people/{person}", "vertices")[:].astype(float) + take.by_sample(f"people/{person}", "root")[:].astype(float)[:, None]


def test_export_and_import_give_the_same_take(exported, tmp_path):
    theirs, out = exported
    ours, events = bring(out, tmp_path / "b.take")
    assert [p["id"] for p in ours.people] == [2, 3] and ours.samples == 6 and Fraction(*ours.clip["fps"]) == RATE
    for person in (2, 3):
        state = np.array(STATES[person])
        there = state != State.ABSENT
        np.testing.assert_array_equal(ours.by_sample(f"people/{person}", "state"), state)
        np.testing.assert_allclose(camera_space(ours, person)[there], camera_space(theirs, person)[there], rtol=0, atol=1e-6)
        for name in ("vertices", "root"):
            np.testing.assert_allclose(ours.by_sample(f"people/{person}", name)[there], theirs.by_sample(f"people/{person}", name)[there], rtol=0, atol=1e-6)
        assert (ours.body(person)["faces"] == theirs.body(person)["faces"]).all()
    np.testing.assert_array_equal(ours.mask(3, 4), theirs.mask(3, 4))
    assert ours.camera()["focal_px"].tolist() == [77.5] * 6 and str(ours.camera()["method"]) == str(theirs.camera()["method"])
    assert ours.clip["path"] == str((out / "images").resolve()) and ours.clip["proxy"]
    assert "fps_assumed" not in codes(events)


def test_import_and_export_give_the_same_folder(exported, tmp_path):
    _, out = exported
    take, _ = bring(out, tmp_path / "b.take")
    list(export(take, "sam-body4d", tmp_path / "again"))
    files = sorted(p.relative_to(out) for p in out.rglob("*") if p.suffix in (".ply", ".obj", ".json", ".png", ".jpg"))
    assert files == sorted(p.relative_to(tmp_path / "again") for p in (tmp_path / "again").rglob("*") if p.suffix in (".ply", ".obj", ".json", ".png", ".jpg"))
    from body4d_engine.imports.meshes import read_mesh

    for name in files:
        if name.suffix in (".ply", ".obj"):
            np.testing.assert_allclose(read_mesh(out / name)[0], read_mesh(tmp_path / "again" / name)[0], rtol=0, atol=1e-6)
        if name.suffix == ".json":
            ours, theirs = (json.loads((base / name).read_text()) for base in (out, tmp_path / "again"))
            np.testing.assert_allclose([ours["focal_length"], *ours["camera"]], [theirs["focal_length"], *theirs["camera"]], rtol=0, atol=1e-6)


def test_absent_samples_repeat_the_last_shape_and_the_first_before_it(exported, tmp_path):
    take, _ = bring(exported[1], tmp_path / "b.take")
    vertices = take.by_sample("people/2", "vertices")
    for sample, same in ((0, 1), (2, 1), (3, 1)):
        np.testing.assert_array_equal(vertices[sample], vertices[same])
    there = np.flatnonzero(np.array(STATES[2]) != State.ABSENT)
    assert vertices.span == (there[0], there[-1] + 1) and len(vertices) == 6  # there are no records of what lies before and after


def test_the_older_revision_without_camera_files(folder, tmp_path):
    shutil.rmtree(folder / "focal_4d_individual")
    shutil.rmtree(folder / "images")
    for film in folder.glob("*.mp4"):
        film.unlink()
    take, events = bring(folder, tmp_path / "b.take")
    assert codes(events) == ["focal_assumed", "fps_assumed"]
    assert str(take.camera()["method"]) == "assumed" and take.clip["path"] is None and (take.clip["width"], take.clip["height"]) == (96, 64)
    assert [n["code"] for n in take.notices()] == ["focal_assumed", "fps_assumed"]
    reference = camera_space(Take.open(folder.parent / "b.take"), 3)
    np.testing.assert_allclose(take.read("people/3", "vertices").mean(1), 0, atol=1e-6)
    known, events = bring(folder, tmp_path / "c.take", focal_px=90, fps=29.97)
    assert codes(events) == [] and str(known.camera()["method"]) == "user" and known.camera()["focal_px"][0] == 90
    assert Fraction(*known.clip["fps"]) == RATE
    np.testing.assert_array_equal(camera_space(known, 3), reference)


def test_obj_alone(folder, exported, tmp_path):
    for file in folder.rglob("*.ply"):
        file.unlink()
    take, _ = bring(folder, tmp_path / "b.take")
    np.testing.assert_allclose(camera_space(take, 3), camera_space(exported[0], 3), rtol=0, atol=1e-6)


def test_with_the_footage_itself(exported, tmp_path):
    theirs, out = exported
    take, _ = bring(out, tmp_path / "b.take", clip=theirs.clip["path"])
    assert take.clip["fingerprint"] == theirs.clip["fingerprint"] and take.clip["proxy"] is None
    short = make_clip(tmp_path / "short.mp4", count=3, size=(96, 64), fps=RATE)
    with pytest.raises(Body4DError, match="short.mp4 has 3 frames, but there are meshes up to frame 5"):
        bring(out, tmp_path / "c.take", clip=short)
    wide = make_clip(tmp_path / "wide.mp4", count=6, size=(128, 64), fps=RATE)
    with pytest.raises(Body4DError, match="wide.mp4 is 128 x 64 px, but the masks of out are 96 x 64 px"):
        bring(out, tmp_path / "c.take", clip=wide)


def test_meshes_that_lie_in_anothers_folder_are_put_right(folder, exported, tmp_path):
    """SAM-Body4D numbers folders by position among those present: alone in a frame, person 3's mesh lies in folder 1."""
    for part in ("mesh_4d_individual", "focal_4d_individual"):
        for number in (1, 9):
            (folder / part / str(number)).mkdir()
        for sample in range(6):
            files = [file for person in (2, 3) for file in sorted((folder / part / str(person)).glob(f"{sample:08d}.*"))]
            order = sorted({file.parent.name for file in files})
            for file in files:
                file.rename(folder / part / ("1" if order.index(file.parent.name) == 0 else "9") / file.name)
        shutil.rmtree(folder / part / "2"), shutil.rmtree(folder / part / "3")
        (folder / part / "9").rename(folder / part / "2")
    labels = np.zeros((64, 96), np.uint8)
    labels[10:20, 10:20], labels[30:40, 10:20] = 2, 3
    write_label_png(folder / "masks" / "00000004.png", labels)  # in this frame both must be seen to know who is who
    take, events = bring(folder, tmp_path / "b.take")
    assert "people_renumbered" in codes(events) and [p["id"] for p in take.people] == [2, 3]
    for person in (2, 3):
        there = np.array(STATES[person]) != State.ABSENT
        np.testing.assert_allclose(camera_space(take, person)[there], camera_space(exported[0], person)[there], rtol=0, atol=1e-6)


def test_unequal_vertex_counts_are_refused_with_the_frame(folder, tmp_path):
    from body4d_engine.imports.meshes import read_mesh, write_ply

    file = folder / "mesh_4d_individual/3/00000004.ply"
    vertices, faces = read_mesh(file)
    write_ply(file, np.vstack([vertices, [0, 0, 1]]), faces, (0, 0, 0))
    with pytest.raises(Body4DError, match=r"00000004.ply: at frame 4 person 3 has 87 vertices, in .*00000000.ply 86"):
        bring(folder, tmp_path / "b.take")
    write_ply(file, vertices, faces[::-1], (0, 0, 0))
    with pytest.raises(Body4DError, match="at frame 4 person 3 has other faces"):
        bring(folder, tmp_path / "b.take")
    write_ply(file, np.where(np.arange(86)[:, None] == 5, np.nan, vertices), faces, (0, 0, 0))
    with pytest.raises(Body4DError, match="at frame 4 person 3 has a vertex that is no number"):
        bring(folder, tmp_path / "b.take")


def spoil(name, content):
    return lambda folder: (folder / name).write_bytes(content)


@pytest.mark.parametrize("break_it, message", [
    (spoil("mesh_4d_individual/3/00000002.ply", b"ply\nnonsense"), r"00000002.ply is not a readable mesh: it has no PLY header"),
    (spoil("focal_4d_individual/3/00000002.json", b"{}"), r"00000002.json cannot be read: KeyError\('focal_length'\)"),
    (spoil("focal_4d_individual/3/00000002.json", b'{"focal_length": NaN, "camera": [0, 0, 1]}'), r"00000002.json cannot be read"),
    (spoil("masks/00000002.png", b"\x89PNG\r\n\x1a\n1234"), "00000002.png is not a readable 8-bit PNG mask"),
    (lambda folder: (folder / "mesh_4d_individual/3").rename(folder / "mesh_4d_individual/0"), "stands for nobody: people are numbered from 1"),
    (lambda folder: shutil.rmtree(folder / "mesh_4d_individual"), "The folder .*out holds no meshes that can be imported"),
    (lambda folder: [shutil.rmtree(p) for p in (folder / "mesh_4d_individual").iterdir()], "holds no .ply or .obj files in numbered folders"),
])
def test_what_is_broken_is_named(folder, tmp_path, break_it, message):
    break_it(folder)
    with pytest.raises(Body4DError, match=message) as caught:
        bring(folder, tmp_path / "b.take")
    assert caught.value.hint


def test_what_is_no_import_is_refused(tmp_path):
    (tmp_path / "a.fbx").touch()
    with pytest.raises(Body4DError, match="a.fbx cannot be imported. Give a folder that SAM-Body4D wrote"):
        bring(tmp_path / "a.fbx", tmp_path / "b.take")
    with pytest.raises(Body4DError, match="There is no file or folder .*nothing"):
        bring(tmp_path / "nothing", tmp_path / "b.take")


def test_a_take_of_a_backend_is_not_overwritten(exported, tmp_path):
    ball_take(tmp_path / "mine.take").close()
    with pytest.raises(Body4DError, match="mine.take holds a take of the lite backend"):
        bring(exported[1], tmp_path / "mine.take")
    take, _ = bring(exported[1], tmp_path / "mine.take", fresh=True)
    assert take.backend == "import"


def test_an_import_is_not_refined(exported, tmp_path):
    """A backend would need masks and pixels for that: it is refused, and not made anew from the footage in its place."""
    bring(exported[1], tmp_path / "b.take")
    with open_clip(exported[0].clip["path"]) as clip, pytest.raises(Body4DError, match="holds imported meshes") as error:
        list(run(clip, tmp_path / "b.take", FakeBackend(), [], {}))
    assert error.value.code == "take_in_use" and "--out" in error.value.hint


def test_again_is_skipped_and_a_stopped_import_goes_on(exported, tmp_path, monkeypatch):
    monkeypatch.setattr("body4d_engine.imports.stage.CHUNK", 2)
    events = import_any([exported[1]], tmp_path / "b.take", clip=exported[0].clip["path"])
    for event in events:
        if getattr(event, "stage", "") == "import" and getattr(event, "done", 0) == 4:
            break
    events.close()
    resumed, _ = bring(exported[1], tmp_path / "b.take", clip=exported[0].clip["path"])
    whole, _ = bring(exported[1], tmp_path / "c.take", clip=exported[0].clip["path"])
    for person in (2, 3):
        for name in ("vertices", "root", "state", "mask_index", "mask_bytes"):
            np.testing.assert_array_equal(resumed.read(f"people/{person}", name), whole.read(f"people/{person}", name))
    _, again = bring(exported[1], tmp_path / "b.take", clip=exported[0].clip["path"])
    assert [e.skipped for e in again if isinstance(e, StageFinished)] == [True, True]


def test_mhr_meshes_have_their_origin_at_the_root_joint(tmp_path):
    """In a folder of MHR meshes the JSON's camera is MHR's own origin."""
    from body4d_engine.imports.meshes import write_ply

    points, faces = np.random.default_rng(0).normal(0, 0.4, (MHR_VERTICES, 3)), np.array([[0, 1, 2], [MHR_VERTICES - 1, 4, 3]])
    camera = np.array([0.3, 1.1, 5.0])
    for part in ("mesh", "focal"):
        (tmp_path / f"out/{part}_4d_individual/1").mkdir(parents=True)
    write_ply(tmp_path / "out/mesh_4d_individual/1/00000000.ply", (points + camera) * [1, -1, -1], faces, (0, 0, 0))
    (tmp_path / "out/focal_4d_individual/1/00000000.json").write_text(json.dumps({"focal_length": 900.0, "camera": camera.tolist()}))
    take, events = bring(tmp_path / "out", tmp_path / "b.take")
    assert codes(events) == ["size_assumed"]
    np.testing.assert_allclose(take.read("people/1", "root")[0], camera + MHR_ROOT_M, atol=1e-6)
    np.testing.assert_allclose(camera_space(take, 1)[0], points + camera, rtol=0, atol=1e-6)



@pytest.mark.parametrize("fps", [float("nan"), float("inf"), 0.0, -5.0])
def test_impossible_rates_are_refused(folder, tmp_path, fps):
    with pytest.raises(Body4DError, match="frames per second is no possible rate"):
        list(import_any([folder], tmp_path / "a.take", fps=fps))


def test_a_rate_for_footage_that_has_its_own_is_refused(folder, tmp_path):
    film = make_clip(tmp_path / "film.mp4", count=6)
    with pytest.raises(Body4DError, match="has its own frame rate"):
        list(import_any([folder], tmp_path / "a.take", fps=25.0, clip=film))


@pytest.mark.parametrize("with_film", [False, True])
def test_a_rate_cut_to_a_whole_number_is_told_where_nothing_better_is_known(folder, tmp_path, monkeypatch, with_film):
    monkeypatch.setattr("body4d_engine.imports.sam_body4d.SamBody4dFolder._find_fps", lambda self: Fraction(29))
    with open_clip(folder / "images") as images:
        film = make_clip(tmp_path / "film.mp4", count=images.frame_count, size=(images.width, images.height))
    _, events = bring(folder, tmp_path / "a.take", clip=film if with_film else None)
    assert ("fps_cut" in codes(events)) != with_film


def test_a_focal_length_of_sam_body4d_itself_is_called_estimated(exported, tmp_path):
    _, out = exported
    shutil.copytree(out, tmp_path / "theirs")
    for path in (tmp_path / "theirs" / "focal_4d_individual").rglob("*.json"):
        data = json.loads(path.read_text())
        del data["method"]
        path.write_text(json.dumps(data))
    ours, _ = bring(tmp_path / "theirs", tmp_path / "b.take")
    assert str(ours.camera()["method"]) == "estimated"
