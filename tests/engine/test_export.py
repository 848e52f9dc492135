# SPDX-License-Identifier: Apache-2.0
"""SAM-Body4D's folder, read back with other readers than our own where there are any."""

import json
from fractions import Fraction

import cv2
import numpy as np
import pytest
from PIL import Image

from body4d_engine.clip import open_clip
from body4d_engine.errors import Body4DError
from body4d_engine.events import Notice
from body4d_engine.exports import export
from body4d_engine.exports.sam_body4d import PARTS
from body4d_engine.imports.label_png import davis_palette, read_label_png, write_label_png
from body4d_engine.take import State

from .bodies import ball_take, volume
from .make_clips import make_clip, read_counter

SIZE, RATE = (96, 64), Fraction(30000, 1001)
STATES = {1: [State.VISIBLE, State.ABSENT, State.ABSENT, State.OCCLUDED, State.VISIBLE, State.ABSENT], 7: [State.ABSENT] + [State.VISIBLE] * 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """(take, folder) of two people with ids 1 and 7 who come and go."""
    root = tmp_path_factory.mktemp("export")
    film = make_clip(root / "film.mp4", count=6, size=SIZE, fps=RATE)
    with open_clip(film) as clip:
        take = ball_take(root / "a.take", clip=clip.describe(), people=(1, 7), states=STATES)
    list(export(take, "sam-body4d", root / "out"))
    return take, root / "out"


def names(folder):
    return sorted(p.name for p in folder.iterdir())


def test_everyone_under_their_own_id_and_no_file_where_absent(made):
    _, out = made
    for number, suffixes, folder in ((1, ".obj .ply", "mesh"), (7, ".obj .ply", "mesh"), (1, ".json", "focal"), (7, ".json", "focal")):
        there = [i for i, state in enumerate(STATES[number]) if state != State.ABSENT]
        assert names(out / f"{folder}_4d_individual" / str(number)) == [f"{i:08d}{s}" for i in there for s in suffixes.split()]
    assert names(out / "rendered_frames_individual" / "7") == [f"{i:08d}_7.jpg" for i in range(1, 6)]
    for folder, suffix in (("images", "jpg"), ("masks", "png"), ("masks_vis", "png"), ("rendered_frames", "jpg")):
        assert names(out / folder) == [f"{i:08d}.{suffix}" for i in range(6)]
    assert names(out)[0].startswith("4d_") and names(out)[-1].startswith("video_mask_")


def read_ply_plainly(path):
    """By the letter of SAM-Body4D's format: binary little endian, float32 xyz, uchar rgba, int faces."""
    head, _, body = path.read_bytes().partition(b"end_header\n")
    lines = head.decode().split("\n")
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    assert [line for line in lines if line.startswith("property")] == [*(f"property float {n}" for n in "xyz"), *(f"property uchar {n}" for n in
                                                                       ("red", "green", "blue", "alpha")), "property list uchar int vertex_indices"]
    count, faces = (int(line.split()[2]) for line in lines if line.startswith("element"))
    vertex = np.frombuffer(body, [("xyz", "<f4", 3), ("rgba", "u1", 4)], count)
    face = np.frombuffer(body, [("n", "u1"), ("index", "<i4", 3)], faces, vertex.nbytes)
    assert len(body) == vertex.nbytes + face.nbytes and (face["n"] == 3).all()
    return vertex["xyz"], vertex["rgba"], face["index"]


def test_meshes_are_in_opengl_camera_axes_and_outward(made):
    take, out = made
    vertices, rgba, faces = read_ply_plainly(out / "mesh_4d_individual/7/00000003.ply")
    expected = take.by_sample("people/7", "vertices")[3].astype(float) + take.by_sample("people/7", "root")[3]
    np.testing.assert_allclose(vertices, expected * [1, -1, -1], rtol=0, atol=3e-7)
    assert vertices[:, 2].max() < 0 < volume(vertices, faces)
    assert rgba[0].tolist() == [*(round(255 * c) for c in take.people[1]["color"]), 255]
    obj = (out / "mesh_4d_individual/7/00000003.obj").read_text().splitlines()
    points = np.array([line.split()[1:] for line in obj if line.startswith("v ")], float)
    np.testing.assert_allclose(points, expected * [1, -1, -1], rtol=0, atol=1e-7)
    assert (np.array([line.split()[1:] for line in obj if line.startswith("f ")], int) - 1 == faces).all()


def test_camera_files_are_in_opencv_axes(made):
    take, out = made
    data = json.loads((out / "focal_4d_individual/7/00000002.json").read_text())
    assert data == {"focal_length": 80.0, "camera": take.by_sample("people/7", "root")[2].astype(float).tolist(), "method": "user"}


def test_masks_are_palette_pictures_of_ids(made):
    take, out = made
    with Image.open(out / "masks/00000004.png") as picture:
        assert picture.mode == "P" and picture.getpalette()[:12] == [0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0]
        labels = np.array(picture)
    assert set(np.unique(labels)) == {0, 1, 7}
    np.testing.assert_array_equal(labels == 7, take.mask(7, 4) & ~take.mask(1, 4))
    assert set(np.unique(np.array(Image.open(out / "masks/00000001.png")))) == {0, 7}


def test_videos_run_at_the_true_rate_and_images_are_the_footage(made):
    _, out = made
    for film in out.glob("*.mp4"):
        with open_clip(film) as clip:
            assert (clip.fps, clip.frame_count, (clip.width, clip.height)) == (RATE, 6, SIZE)
    assert [read_counter(cv2.imread(str(out / f"images/{i:08d}.jpg"))) for i in range(6)] == list(range(6))
    together, alone = (cv2.imread(str(out / name)) for name in ("rendered_frames/00000004.jpg", "rendered_frames_individual/7/00000004_7.jpg"))
    assert (together[0, 0] > 250).all() and (together < 200).any(-1).sum() > 1.3 * (alone < 200).any(-1).sum() > 100
    dimmed = cv2.imread(str(out / "masks_vis/00000004.png")).astype(int)
    assert np.abs(dimmed[60, 90] - cv2.imread(str(out / "images/00000004.jpg"))[60, 90] / 2).max() < 12


def test_without_masks_and_footage_the_rest_is_written_and_it_says_so(tmp_path):
    events = list(export(ball_take(tmp_path / "a.take", masks=False), "sam-body4d", tmp_path / "out"))
    assert [e.code for e in events if isinstance(e, Notice)] == ["no_footage", "no_images", "no_masks"]
    assert not {"images", "masks", "masks_vis"} & set(names(tmp_path / "out"))
    assert len(names(tmp_path / "out" / "rendered_frames")) == 6


def test_only_what_is_asked_for(tmp_path):
    take = ball_take(tmp_path / "a.take")
    list(export(take, "sam-body4d", tmp_path / "out", parts=("ply", "focal")))
    assert names(tmp_path / "out") == ["focal_4d_individual", "mesh_4d_individual"]
    with pytest.raises(Body4DError, match="has no part pyl. Choose from: images, masks"):
        list(export(take, "sam-body4d", tmp_path / "out2", parts=("pyl",)))
    assert len(PARTS) == 9


def test_a_folder_in_use_is_refused_and_a_stopped_export_leaves_nothing(tmp_path):
    take = ball_take(tmp_path / "a.take")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old.ply").touch()
    with pytest.raises(Body4DError, match="out exists and is not an empty folder"):
        list(export(take, "sam-body4d", tmp_path / "out"))
    events = export(take, "sam-body4d", tmp_path / "new")
    for _ in range(5):
        next(events)
    events.close()
    assert names(tmp_path) == ["a.take", "out"]
    with pytest.raises(Body4DError, match="There is no layout called fbx. Choose one of: overlay, report, sam-body4d."):
        list(export(take, "fbx", tmp_path / "x"))


def test_where_masks_overlap_the_nearer_person_wins(tmp_path):
    take = ball_take(tmp_path / "a.take", samples=1)
    list(export(take, "sam-body4d", tmp_path / "out", parts=("masks",)))
    labels = np.array(Image.open(tmp_path / "out/masks/00000000.png"))
    near, far = take.mask(1, 0), take.mask(2, 0)
    assert (near & far).any() and (labels[near] == 1).all() and (labels[far & ~near] == 2).all()


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (640, 360)])
def test_label_pngs_read_back_as_written(tmp_path, size):
    labels = np.random.default_rng(1).integers(0, 128, size[::-1]).astype(np.uint8)
    write_label_png(tmp_path / "a.png", labels)
    with Image.open(tmp_path / "a.png") as picture:
        np.testing.assert_array_equal(np.array(picture), labels)
    np.testing.assert_array_equal(read_label_png(tmp_path / "a.png"), labels)
    colors = cv2.cvtColor(cv2.imread(str(tmp_path / "a.png")), cv2.COLOR_BGR2RGB)
    np.testing.assert_array_equal(colors, davis_palette()[labels])


def test_label_pngs_of_other_writers(tmp_path):
    labels = (np.add.outer(np.arange(40), np.arange(30)) % 7).astype(np.uint8)
    picture = Image.fromarray(labels, "P")
    picture.putpalette(davis_palette().ravel().tolist())
    picture.save(tmp_path / "p.png", optimize=True)
    cv2.imwrite(str(tmp_path / "grey.png"), labels)
    np.testing.assert_array_equal(read_label_png(tmp_path / "p.png"), labels)
    np.testing.assert_array_equal(read_label_png(tmp_path / "grey.png"), labels)
    cv2.imwrite(str(tmp_path / "rgb.png"), np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(Body4DError, match="rgb.png is a colour picture, not a mask"):
        read_label_png(tmp_path / "rgb.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "p.png").read_bytes()[:200])
    with pytest.raises(Body4DError, match="cut.png is not a readable 8-bit PNG mask"):
        read_label_png(tmp_path / "cut.png")


def test_into_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    list(export(ball_take(tmp_path / "a.take"), "sam-body4d", ".", parts=("ply",)))
    assert names(tmp_path / "here") == ["mesh_4d_individual"]


def test_another_clip_of_the_same_size_is_told(made, tmp_path):
    take, _ = made
    other = make_clip(tmp_path / "other.mp4", count=7, size=SIZE, fps=RATE)
    for clip, told in ((None, False), (other, True)):
        events = list(export(take, "overlay", tmp_path / "o.mp4", clip_path=clip))
        assert ("clip_differs" in [e.code for e in events if isinstance(e, Notice)]) == told
