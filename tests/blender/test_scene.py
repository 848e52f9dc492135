# SPDX-License-Identifier: Apache-2.0
"""A take in Blender: exact shapes, an overlay that fits to a hundredth of a pixel, real time at every frame rate."""

from fractions import Fraction

import bpy
import numpy as np
import pytest
from bpy_extras.object_utils import world_to_camera_view
from mathutils import Vector

from body4d_blender import takes
from body4d_blender.scene import build_take, fcurves
from body4d_blender.scene.timing import fps_parts
from body4d_engine.take import State, Take, TakeError

from .make_take import SIZE, make_take, sphere


def shown(body) -> np.ndarray:
    """Vertices (V, 3) float32 of the evaluated object, in its own space."""
    mesh = body.evaluated_get(bpy.context.evaluated_depsgraph_get()).data
    out = np.empty(len(mesh.vertices) * 3, np.float32)
    mesh.vertices.foreach_get("co", out)
    return out.reshape(-1, 3)


def upright(vertices) -> np.ndarray:
    return np.stack([vertices[..., 0], vertices[..., 2], -vertices[..., 1]], -1)


def body_of(collection, person: int):
    return next(o for o in collection.objects if o.get("body4d_person") == person)


def camera_of(collection):
    return next(o for o in collection.objects if o.type == "CAMERA")


@pytest.mark.parametrize("mesh_cache", [False, True], ids=["keys", "cache"])
@pytest.mark.parametrize("frames", [(0, 20, 1), (5, 30, 1), (3, 40, 3)], ids=["all", "part", "every third"])
def test_every_sample_is_exact_and_held_outside_the_take(scene, tmp_path, frames, mesh_cache):
    start, end, step = frames
    path = make_take(tmp_path / "a.take", start=start, end=end, step=step)
    collection = build_take(path, mesh_cache=mesh_cache, scene_start=101)
    take = Take.open(path)
    for person in (1, 2):
        body, vertices, root = body_of(collection, person), take.by_sample(f"people/{person}", "vertices"), take.by_sample(f"people/{person}", "root")
        assert bool(body.data.shape_keys) != mesh_cache
        for i, frame in [(0, start - 4), *enumerate(take.frames), (take.samples - 1, end + 7)]:
            scene.frame_set(101 + frame)
            assert np.array_equal(shown(body), upright(vertices[i])), (person, frame)
            assert np.array_equal(np.array(body.matrix_world.translation, np.float32), upright(root[i]))


def test_frames_between_two_samples_are_between_their_shapes(scene, tmp_path):
    path = make_take(tmp_path / "a.take", end=40, step=4)
    body, vertices = body_of(build_take(path, scene_start=0), 1), Take.open(path).read("people/1", "vertices")
    scene.frame_set(18)
    assert np.abs(shown(body) - upright((vertices[4] + vertices[5]) / 2)).max() < 1e-6


def test_a_clip_longer_than_float32_counts_stays_exact(scene, tmp_path):
    path = make_take(tmp_path / "a.take", people={1: None}, end=27001, step=3, mesh=sphere(3, 3))
    body, vertices = body_of(build_take(path), 1), Take.open(path).read("people/1", "vertices")
    for i in (0, 1, 2364, 2365, 4973, 4975, 4981, 8187, 8191, 8999, 9000):  # two keys alone would miss those in the middle
        scene.frame_set(1 + 3 * i)
        assert np.array_equal(shown(body), upright(vertices[i])), i


@pytest.mark.parametrize("size, principal", [((640, 360), None), ((360, 640), None), ((640, 360), (290.0, 200.5))],
                         ids=["landscape", "portrait", "off centre"])
def test_blenders_camera_projects_as_the_take_does(scene, tmp_path, size, principal):
    focal = np.linspace(480, 560, 20)
    path = make_take(tmp_path / "a.take", size=size, principal=principal, focal=focal, method="metadata")
    collection, take = build_take(path), Take.open(path)
    camera, center, worst = camera_of(collection), take.camera()["principal_px"][0], 0.0
    for i in range(20):
        scene.frame_set(1 + i)
        for person in (1, 2):
            points = (take.read(f"people/{person}", "vertices")[i] + take.read(f"people/{person}", "root")[i]).astype(float)
            wanted = points[:, :2] / points[:, 2:] * focal[i] + center
            body = body_of(collection, person)
            seen = np.array([world_to_camera_view(scene, camera, body.matrix_world @ Vector(v.tolist())) for v in shown(body)])
            worst = max(worst, np.abs(np.stack([seen[:, 0], 1 - seen[:, 1]], -1) * size - wanted).max())
    print(f"max reprojection error {worst:.1e} px")
    assert worst < 1e-2


def test_faces_stay_outward_and_smooth(scene, tmp_path):
    body = body_of(build_take(make_take(tmp_path / "a.take")), 1)
    rest = sphere()[0]
    body.data.vertices.foreach_set("co", upright(rest).ravel())
    body.data.update()
    assert all(p.normal.dot(p.center) > 0 and p.use_smooth for p in body.data.polygons)
    assert not body.data.validate(verbose=True)


def test_an_empty_scene_takes_the_clips_settings(scene, tmp_path):
    collection = build_take(make_take(tmp_path / "a.take", start=4, end=50))
    render = scene.render
    assert (render.resolution_x, render.resolution_y, render.resolution_percentage) == (*SIZE, 100)
    assert render.fps == 30 and render.fps_base == pytest.approx(1.001, abs=1e-7)
    assert (scene.frame_start, scene.frame_end) == (5, 50)
    assert scene.camera == camera_of(collection)


@pytest.mark.parametrize("fps", ["30000/1001", "24000/1001", "60000/1001", "25", "30", "25/2", "120", "15000/1001"])
def test_frame_rates_as_blender_counts_them(fps):
    whole, base = fps_parts(Fraction(fps))
    assert whole / np.float32(base) == pytest.approx(float(Fraction(fps)), rel=1e-7)
    assert fps != "30000/1001" or (whole, base) == (30, 1.001)


def test_a_scene_that_holds_something_keeps_its_settings_unless_asked(scene, tmp_path):
    scene.collection.objects.link(bpy.data.objects.new("mine", None))
    scene.render.resolution_x, scene.frame_start, scene.frame_end = 1000, 11, 99
    path = make_take(tmp_path / "a.take")
    notices = []
    build_take(path, report=notices.append)
    assert (scene.render.resolution_x, scene.render.fps, scene.frame_start, scene.frame_end, scene.camera) == (1000, 24, 11, 99, None)
    assert any("keeps its render size" in n for n in notices)
    collection = build_take(path, match_scene=True)
    assert (scene.render.resolution_x, scene.render.fps, scene.frame_start, scene.frame_end) == (640, 30, 11, 30)
    assert scene.camera == camera_of(collection)


@pytest.mark.parametrize("fps, base", [(24, 1.0), (60, 1.001), (50, 1.0)])
@pytest.mark.parametrize("mesh_cache", [False, True], ids=["keys", "cache"])
def test_another_frame_rate_keeps_real_time(scene, tmp_path, fps, base, mesh_cache):
    state = np.full(20, State.VISIBLE)
    state[10:15] = State.ABSENT
    path = make_take(tmp_path / "a.take", people={1: state}, focal=np.linspace(400, 590, 20), method="metadata")
    scene.render.fps, scene.render.fps_base = fps, base
    collection = build_take(path, match_scene=False, mesh_cache=mesh_cache, scene_start=1)
    body, camera, take = body_of(collection, 1), camera_of(collection), Take.open(path)
    rate = fps / base / (30000 / 1001)
    for i in (0, 3, 7, 19):
        exact = 1 + i * rate
        scene.frame_set(int(exact), subframe=exact - int(exact))
        assert np.abs(shown(body) - upright(take.read("people/1", "vertices")[i])).max() < 2e-5
        assert np.abs(np.array(body.matrix_world.translation) - upright(take.read("people/1", "root")[i])).max() < 1e-5
        assert camera.data.lens == pytest.approx((400 + 10 * i) * 36 / 640, abs=1e-3)
    for i, hidden in ((9, False), (11, True), (14, True), (16, False)):
        scene.frame_set(round(1 + i * rate))
        assert body.hide_viewport == body.hide_render == hidden, i


def test_the_current_frame_is_shown_at_once_and_kept(scene, tmp_path):
    path = make_take(tmp_path / "a.take")
    scene.frame_set(7)
    scene.render.fps, scene.render.fps_base = 30, 1.001
    for _ in range(2):
        body = body_of(build_take(path, match_scene=False, scene_start=1), 1)
        assert scene.frame_current == 7 and np.array_equal(shown(body), upright(Take.open(path).read("people/1", "vertices")[6]))


def test_absent_people_are_hidden_and_only_then(scene, tmp_path):
    state = np.array([0, 0, 0, 1, 1, 0, 0, 1, 2, 3, 1, 0])
    collection = build_take(make_take(tmp_path / "a.take", people={1: state, 2: None}, end=12), scene_start=1)
    first, second = body_of(collection, 1), body_of(collection, 2)
    for i, s in enumerate(state):
        scene.frame_set(1 + i)
        assert first.hide_viewport == first.hide_render == (s == State.ABSENT), i
        assert not second.hide_viewport and not second.hide_render
    assert dict(first["body4d_frames"]) == {"absent": 6, "visible": 4, "occluded": 1, "filled": 1}


def test_someone_never_seen_is_reported_and_the_rest_is_built(scene, tmp_path):
    notices = []
    collection = build_take(make_take(tmp_path / "a.take", people={1: np.zeros(20), 2: None}), report=notices.append)
    assert sorted(o.name for o in collection.objects) == ["Bo", "a camera (focal assumed)"]
    assert any(n.startswith("Ana has no mesh") for n in notices)


def test_a_take_of_nobody_is_a_camera(scene, tmp_path):
    collection = build_take(make_take(tmp_path / "a.take", people={}))
    assert [o.type for o in collection.objects] == ["CAMERA"]


def test_one_sample_is_enough(scene, tmp_path):
    path = make_take(tmp_path / "a.take", people={1: None}, end=1)
    body = body_of(build_take(path), 1)
    scene.frame_set(40)
    assert np.array_equal(shown(body), upright(Take.open(path).read("people/1", "vertices")[0]))
    assert scene.frame_start == scene.frame_end == 1


def test_an_unfinished_take_shows_what_is_there_and_says_so(scene, tmp_path):
    path = make_take(tmp_path / "a.take", people={1: None}, finish=False)
    with Take.open(path) as take:
        file = take.file_of("people/1", "vertices")
    with open(file, "r+b") as handle:
        handle.truncate(32 + 12 * len(sphere()[0]) * 7 + 5)
    notices = []
    body = body_of(build_take(path, report=notices.append), 1)
    assert len(body.data.shape_keys.key_blocks) == 1 + 7
    assert any("7 of 20 samples" in n for n in notices)


def test_the_focal_length_is_called_assumed(scene, tmp_path):
    notices = []
    collection = build_take(make_take(tmp_path / "a.take"), report=notices.append)
    camera = camera_of(collection)
    assert camera.name == "a camera (focal assumed)" and "assumed" in camera["body4d_focal"] and "assumed" in collection["body4d_focal"]
    assert any("assumed, not measured" in n for n in notices)
    collection = build_take(make_take(tmp_path / "b.take", method="metadata", note="EXIF"))
    assert camera_of(collection).name == "b camera" and collection["body4d_focal"] == "500.0 px, metadata (EXIF)"


def test_the_persons_colour_is_the_material_and_the_viewport_colour(scene, tmp_path):
    body = body_of(build_take(make_take(tmp_path / "a.take")), 1)
    material = body.data.materials[0]
    wanted = [((c + 0.055) / 1.055) ** 2.4 for c in (0.9, 0.6, 0.1)]
    shader = next(n for n in material.node_tree.nodes if n.type == "BSDF_PRINCIPLED")
    for color in (material.diffuse_color, body.color, shader.inputs["Base Color"].default_value):
        assert list(color)[:3] == pytest.approx(wanted, abs=1e-6)


def test_markers_are_few_and_start_where_the_span_does(scene, tmp_path):
    state = np.full(400, State.VISIBLE)
    state[50:60], state[65:70] = State.OCCLUDED, State.OCCLUDED  # half a second apart: one span
    state[200:210] = State.FILLED
    blinking = np.where(np.arange(400) % 40 < 5, State.OCCLUDED, State.VISIBLE)
    busy = np.where(np.arange(400) % 20 < 2, State.FILLED, State.VISIBLE)
    build_take(make_take(tmp_path / "a.take", people={1: state, 2: blinking, 3: busy}, end=400, mesh=sphere(3, 3)), scene_start=1)
    markers = sorted((m.name, m.frame) for m in scene.timeline_markers)
    assert [m for m in markers if m[0].startswith("Ana")] == [("Ana filled", 201), ("Ana occluded", 51)]
    assert len([m for m in markers if m[0] == "Bo occluded"]) == 10
    assert 1 <= len([m for m in markers if m[0] == "Cy filled"]) <= 12


@pytest.mark.parametrize("damage, words", [("camera", "camera.npz"), ("faces", "missing or damaged"), ("no faces", "missing or damaged"), ("missing", "no take at")])
def test_a_damaged_take_is_refused_before_anything_is_touched(scene, tmp_path, damage, words):
    path = make_take(tmp_path / "a.take")
    if damage == "camera":
        (path / "camera.npz").write_bytes(b"no")
    elif damage == "faces":
        np.savez(path / "people/1/body.refine.npz", faces=np.array([[0, 1, 4000]]))
    elif damage == "no faces":
        np.savez(path / "people/1/body.refine.npz", model="sphere")
    else:
        path = tmp_path / "other.take"
    with pytest.raises(TakeError, match=words):
        build_take(path)
    assert not bpy.data.objects and not bpy.data.meshes and not bpy.data.collections and scene.render.fps == 24


def test_a_take_just_begun_has_no_mesh_yet(scene, tmp_path):
    path = make_take(tmp_path / "a.take", people={1: None}, finish=False)
    with open(Take.open(path).file_of("people/1", "vertices"), "r+b") as file:
        file.truncate(32)
    notices = []
    assert [o.type for o in build_take(path, report=notices.append).objects] == ["CAMERA"]
    assert "Ana has no mesh in this take yet." in notices


def test_keys_are_made_only_from_the_first_to_the_last_sighting(scene, tmp_path):
    state = np.full(20, State.ABSENT, np.uint8)
    state[5:8] = state[10:12] = State.VISIBLE
    path = make_take(tmp_path / "a.take", people={1: state})
    body = body_of(build_take(path), 1)
    assert [key.name for key in body.data.shape_keys.key_blocks][1:] == [f"f{frame:06d}" for frame in range(5, 12)]
    places = [curve.keyframe_points for curve in fcurves.curves_of(body, "") if curve.data_path == "location"]
    assert [(round(points[0].co.x), round(points[-1].co.x)) for points in places] == [(6, 12)] * 3
    with Take.open(path) as take:
        vertices = take.by_sample("people/1", "vertices")
        assert vertices.span == (5, 12)
    for sample in (0, 5, 6, 7, 10, 11, 19):
        scene.frame_set(1 + sample)
        np.testing.assert_array_equal(shown(body), upright(vertices[sample]))
    assert takes.mesh_bytes(path) == vertices[5:12].nbytes


@pytest.mark.parametrize("mesh_cache", [False, True], ids=["keys", "cache"])
@pytest.mark.parametrize("step, rate", [(1, None), (3, None), (1, 24)], ids=["all", "every third", "another rate"])
def test_somebody_who_is_there_for_a_part_only_moves_in_that_part(scene, tmp_path, step, rate, mesh_cache):
    state = np.full(20, State.ABSENT, np.uint8)
    state[7:13] = State.VISIBLE
    path = make_take(tmp_path / "a.take", people={1: None, 2: state}, start=3, end=3 + 20 * step, step=step, fps=(30, 1))
    if rate:
        scene.render.fps, scene.render.fps_base = rate, 1.0
    body = body_of(build_take(path, mesh_cache=mesh_cache, scene_start=101, match_scene=rate is None), 2)
    for sample, hidden in ((5, True), (8, False), (12, False), (15, True)):
        scene.frame_set(round(101 + (3 + sample * step) * (rate / 30 if rate else 1)))
        assert body.hide_viewport == hidden
    fcurves.remove_curves(body, "", {"hide_viewport"})
    body.hide_viewport = False  # or it is not evaluated where it is absent
    with Take.open(path) as take:
        vertices, root = (take.by_sample("people/2", name) for name in ("vertices", "root"))
        assert vertices.span == (7, 13) and take.file_of("people/2", "vertices").stat().st_size == 32 + 6 * vertices[7].nbytes
        for sample in range(20):
            at = 101 + take.frames[sample] * (rate / 30 if rate else 1)
            scene.frame_set(int(at), subframe=at - int(at))
            assert np.abs(shown(body) - upright(vertices[sample])).max() < (2e-5 if rate else 1e-12), sample
            assert np.abs(np.array(body.matrix_world.translation) - upright(root[sample])).max() < 1e-5
