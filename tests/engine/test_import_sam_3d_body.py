# SPDX-License-Identifier: Apache-2.0
"""Real SAM 3D Body output as a take, and files that are not quite that."""

import json

import numpy as np
import pytest

from body4d_engine.errors import Body4DError
from body4d_engine.events import Notice
from body4d_engine.imports import import_any
from body4d_engine.imports.sam_3d_body import solve_pinhole
from body4d_engine.metrics import FEET, evaluate, motion_of
from body4d_engine.take import State, Take

from .bodies import ball, volume
from .make_clips import make_clip

FOCAL, CENTRE = 500.0, np.array([160.0, 120.0])


def bring(paths, out, **options):
    events = list(import_any(paths, out, **options))
    return Take.open(out), [e.code for e in events if isinstance(e, Notice)]


@pytest.fixture(scope="module")
def real(shared, tmp_path_factory):
    folder = shared / "data" / "sam_3d_body"
    files = [folder / "img_subj00.npz", folder / "img_subj01.npz"]
    take, codes = bring(files, tmp_path_factory.mktemp("real") / "a.take", topology=folder / "mhr_topology.npz")
    assert codes == ["size_deduced"]
    return take, [np.load(file) for file in files]


def project(points, camera, sample=0):
    return points[:, :2] / points[:, 2:] * camera["focal_px"][sample] + camera["principal_px"][sample]


def test_the_take_projects_onto_its_own_keypoints(real):
    take, data = real
    assert (take.clip["width"], take.clip["height"], take.samples) == (1920, 890, 1)
    camera = take.camera()
    assert abs(camera["focal_px"][0] - 2535.27) < 0.01 and str(camera["method"]) == "estimated" and "keypoints" in str(camera["note"])
    for person, theirs in zip((1, 2), data):
        points = take.read(f"people/{person}", "keypoints_m")[0].astype(float) + take.read(f"people/{person}", "root")[0]
        assert np.abs(project(points, camera) - theirs["pred_keypoints_2d"]).max() < 0.01
        np.testing.assert_array_equal(take.read(f"people/{person}", "keypoints_px")[0, :, :2], theirs["pred_keypoints_2d"])


def test_camera_space_is_kept_and_the_origin_is_the_root_joint(real):
    take, data = real
    for person, theirs in zip((1, 2), data):
        group = f"people/{person}"
        root = take.read(group, "root")[0].astype(float)
        for name, key in (("vertices", "pred_vertices"), ("joints", "pred_joint_coords"), ("keypoints_m", "pred_keypoints_3d")):
            there = theirs[key].astype(float) + theirs["pred_cam_t"].astype(float)
            np.testing.assert_allclose(take.read(group, name)[0].astype(float) + root, there, rtol=0, atol=1e-6)
        np.testing.assert_allclose(root, theirs["pred_cam_t"].astype(float) + [0, -0.923987, 0], rtol=0, atol=1e-6)
        np.testing.assert_allclose(take.read(group, "joints")[0, 1], 0, atol=1e-6)
        np.testing.assert_array_equal(take.read(group, "params")[0], np.concatenate([theirs[k] for k in ("mhr_model_params", "shape_params", "expr_params")]))
        assert take.read(group, "state").tolist() == [State.VISIBLE]


def test_the_faces_are_closed_and_point_outwards(real):
    take, _ = real
    for person in (1, 2):
        faces = take.body(person)["faces"]
        edges = faces[:, [0, 1, 1, 2, 2, 0]].reshape(-1, 2).astype(np.int64)
        codes = edges[:, 0] * 20000 + edges[:, 1]
        assert len(np.unique(codes)) == len(codes)  # no edge twice in the same direction
        np.testing.assert_array_equal(np.sort(codes), np.sort(edges[:, 1] * 20000 + edges[:, 0]))  # each once in the other
        assert 0.04 < volume(take.read(f"people/{person}", "vertices")[0], faces) < 0.12  # m3
        assert str(take.body(person)["model"]) == "MHR"


def test_keypoints_are_named_and_lie_where_their_names_say(real):
    take, _ = real
    for person in (1, 2):
        motion = motion_of(take, person)
        at = {name: motion.joints_m[0, i] for i, name in enumerate(motion.names)}
        assert len(at) == 70 and set(FEET) < set(at) and {"nose", "left_shoulder", "right_wrist"} < set(at)

        def far(a, b, at=at):
            return np.linalg.norm(at[a] - at[b])

        up = motion.root()[0] - np.mean([at["left_ankle"], at["right_ankle"]], 0)  # the hips above the feet
        up /= np.linalg.norm(up)
        assert min((at["nose"] - at["left_hip"]) @ up, (at["neck"] - at["right_hip"]) @ up) > 0.35
        across = np.cross(at["left_hip"] - at["right_hip"], at["neck"] - motion.root()[0])  # points to where the body faces
        for side, other in (("left", "right"), ("right", "left")):
            assert 0.2 < far(f"{side}_elbow", f"{side}_wrist") < 0.32 and 0.3 < far(f"{side}_knee", f"{side}_ankle") < 0.5
            assert 0.15 < far(f"{side}_heel", f"{side}_big_toe") < 0.3 and far(f"{side}_big_toe", f"{side}_small_toe") < 0.12
            assert (at[f"{side}_big_toe"] - at[f"{side}_heel"]) @ up < 0.2
            assert far(f"{side}_elbow", f"{side}_olecranon") < 0.08 > far(f"{side}_elbow", f"{side}_cubital_fossa")
            for finger in ("thumb", "index", "middle", "ring", "pinky"):
                row = [f"{side}_{finger}_{part}" for part in ("third_joint", "second_joint", "first_joint", "tip")]
                assert all(0.01 < far(a, b) < 0.07 for a, b in zip(row[:-1], row[1:], strict=True))
                assert 0.02 < far(row[0], f"{side}_wrist") < 0.12 < far(row[0], f"{other}_wrist")
        assert (at["nose"] - (at["left_ear"] + at["right_ear"]) / 2) @ across > 0


def test_feet_metrics_and_references_know_imported_keypoints(shared, tmp_path):
    """The same body for ten frames, whose root glides 1 mm a frame to the camera's right."""
    folder = shared / "data" / "sam_3d_body"
    with np.load(folder / "img_subj00.npz") as file:
        data = {name: np.repeat(file[name][None], 10, 0) for name in ("pred_vertices", "pred_cam_t", "pred_keypoints_3d")}
    data["pred_cam_t"] = data["pred_cam_t"] + 0.001 * np.arange(10, dtype=np.float32)[:, None] * [1, 0, 0]
    path = saved(tmp_path / "a.npz", focal_length=np.float32(2535), **data)
    take, _ = bring([path], tmp_path / "a.take", topology=folder / "mhr_topology.npz", fps=30)
    motion = motion_of(take, 1)
    names = ("left_hip", "right_hip", "left_knee", "right_wrist")
    np.savez(tmp_path / "truth.npz", joints_m=motion.of(*names) + [0, 0, 0.02], joint_names=np.array(names), frames=np.arange(10))
    found = {result.name: result for result in evaluate(take, tmp_path / "truth.npz")}
    assert found["foot_sliding"].value == pytest.approx(1, abs=0.01) and found["foot_sliding"].note.startswith("planted: below")
    assert found["mpjpe"].value == pytest.approx(0, abs=0.01) and found["root_error"].value == pytest.approx(20, abs=0.1)


def test_mhr_without_topology_says_where_to_get_it(shared, tmp_path):
    with pytest.raises(Body4DError, match="img_subj00.npz has 18439 vertices but no faces.*SAM-Body4D exported.*mhr_face_mask.ply"):
        bring([shared / "data" / "sam_3d_body" / "img_subj00.npz"], tmp_path / "a.take")


def test_a_ply_is_a_topology_and_the_round_trip_through_sam_body4d_is_exact(real, shared, tmp_path):
    from body4d_engine.exports import export

    take, _ = real
    list(export(take, "sam-body4d", tmp_path / "out", parts=("ply", "focal", "renders")))
    again, _ = bring([tmp_path / "out"], tmp_path / "b.take")
    for person in (1, 2):
        for name in ("vertices", "root"):
            ours, theirs = (np.asarray(t.read(f"people/{person}", name), float) for t in (again, take))
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-6)
        camera = json.loads((tmp_path / f"out/focal_4d_individual/{person}/00000000.json").read_text())
        np.testing.assert_allclose(camera["camera"], real[1][person - 1]["pred_cam_t"], rtol=0, atol=1e-6)
    assert (again.clip["width"], again.clip["height"]) == (1920, 890)
    ply = tmp_path / "out/mesh_4d_individual/1/00000000.ply"
    third, _ = bring([shared / "data" / "sam_3d_body" / "img_subj01.npz"], tmp_path / "c.take", topology=ply)
    assert (third.body(1)["faces"] == take.body(1)["faces"]).all()


def sequence(frames=4, **changes):
    """What a small body's SAM 3D Body would have returned for a few frames."""
    rng = np.random.default_rng(2)
    vertices, faces = ball()
    moved = np.array([0.2, -0.1, 3.0]) + 0.05 * np.arange(frames)[:, None]
    points = rng.normal(0, 0.3, (frames, 70, 3)).astype(np.float32)
    placed = points + moved[:, None]
    data = {"pred_vertices": np.repeat(vertices[None], frames, 0).astype(np.float32), "pred_cam_t": moved.astype(np.float32), "pred_keypoints_3d": points,
            "pred_keypoints_2d": (placed[..., :2] / placed[..., 2:] * FOCAL + CENTRE).astype(np.float32), "faces": faces}
    data.update(changes)
    return {key: value for key, value in data.items() if value is not None}


def saved(path, **arrays):
    np.savez(path, **arrays)
    return path


def test_arrays_with_a_frame_axis(tmp_path):
    files = [saved(tmp_path / "ana.npz", **sequence(4)), saved(tmp_path / "bo.npz", **sequence(3))]
    take, codes = bring(files, tmp_path / "a.take", fps=25)
    assert codes == ["size_deduced"] and take.samples == 4 and take.clip["fps"] == [25, 1]
    assert [p["name"] for p in take.people] == ["ana", "bo"]
    assert take.by_sample("people/2", "state")[:].tolist() == [1, 1, 1, 0]
    np.testing.assert_allclose(take.camera()["focal_px"], FOCAL, rtol=1e-4)
    np.testing.assert_allclose(take.read("people/1", "root")[2], sequence(4)["pred_cam_t"][2], atol=1e-6)
    _, codes = bring(files, tmp_path / "b.take")
    assert codes == ["size_deduced", "fps_assumed"]


def test_a_focal_length_in_the_file_is_used_frame_by_frame(tmp_path):
    data = sequence(3)
    take, _ = bring([saved(tmp_path / "a.npz", focal_length=np.array([500.0, 501.0, 502.0]), **data)], tmp_path / "a.take", fps=25)
    assert take.camera()["focal_px"].tolist() == [500, 501, 502] and "focal_length" in str(take.camera()["note"])
    single = {key: value if key == "faces" else value[0] for key, value in data.items()}
    take, _ = bring([saved(tmp_path / "b.npz", focal_length=np.float32(500), **single)], tmp_path / "b.take")
    assert take.camera()["focal_px"].tolist() == [500] and (take.clip["width"], take.clip["height"]) == (320, 240)


def test_footage_gives_size_and_rate(tmp_path):
    film = make_clip(tmp_path / "film.mp4", count=6, size=(320, 240), fps=24)
    take, codes = bring([saved(tmp_path / "a.npz", **sequence(4))], tmp_path / "a.take", clip=film)
    assert codes == ["size_deduced"] and take.samples == 6 and take.clip["fps"] == [24, 1] and take.clip["path"]
    assert take.by_sample("people/1", "state")[:].tolist() == [1, 1, 1, 1, 0, 0] and take.camera()["focal_px"].shape == (6,)


def test_keypoints_that_do_not_agree_are_reported(tmp_path):
    data = sequence(3)
    data["pred_keypoints_2d"][1, 5] += 30
    _, codes = bring([saved(tmp_path / "a.npz", **data)], tmp_path / "a.take", fps=25)
    assert "keypoints_differ" in codes


@pytest.mark.parametrize("changes, message", [
    ({"pred_cam_t": None}, "a.npz is not what SAM 3D Body returns: it has no pred_cam_t"),
    ({"pred_cam_t": np.zeros((3, 3), np.float32)}, r"pred_cam_t of .*a.npz has the shape \(3, 3\), which does not fit"),
    ({"pred_vertices": np.full((4, 86, 3), np.nan, np.float32)}, "pred_vertices of .*a.npz has a value that is no number at frame 0"),
    ({"pred_vertices": np.zeros((4, 86), np.float32)}, "pred_cam_t of .*a.npz has the shape|pred_vertices of .*a.npz has the shape"),
    ({"faces": None}, "a.npz has 86 vertices but no faces. Give --topology"),
    ({"faces": np.array([[0, 1, 200]])}, "The faces of .*a.npz are for 201 vertices, a.npz has 86"),
    ({"faces": np.array([0, 1, 2])}, r"The faces of .*a.npz have the shape \(3,\)"),
    ({"pred_keypoints_2d": None}, "no focal_length and no keypoints to find it from"),
    ({"pred_vertices": np.array({"a": 1}, dtype=object)}, "a.npz cannot be read: Object arrays cannot be loaded"),
])
def test_what_is_wrong_is_named(tmp_path, changes, message):
    with pytest.raises(Body4DError, match=message) as caught:
        bring([saved(tmp_path / "a.npz", **sequence(4, **changes))], tmp_path / "a.take")
    assert caught.value.hint


def test_a_file_that_is_cut_short(tmp_path):
    path = saved(tmp_path / "a.npz", **sequence(4))
    path.write_bytes(path.read_bytes()[:900])
    with pytest.raises(Body4DError, match="a.npz cannot be read"):
        bring([path], tmp_path / "a.take")


@pytest.mark.parametrize("focal", [None, 812.0])
def test_the_camera_is_solved_exactly(focal):
    points = np.random.default_rng(0).uniform([-1, -1, 2], [1, 1, 6], (70, 3))
    found, centre = solve_pinhole(points, points[:, :2] / points[:, 2:] * 812 + [333.3, 222.2], focal)
    assert abs(found - 812) < 1e-6 and np.abs(centre - [333.3, 222.2]).max() < 1e-6
