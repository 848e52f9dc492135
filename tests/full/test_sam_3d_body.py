# SPDX-License-Identifier: Apache-2.0
"""SAM 3D Body with tiny random weights: one crop's result is its own, the camera is honoured, nothing is stale, nothing is NaN."""

import dataclasses

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models.sam_3d_body import crops as crops_module  # noqa: E402
from body4d_engine.models.sam_3d_body import fusion  # noqa: E402
from body4d_engine.models.sam_3d_body.crops import CropInput, View, cut, pack  # noqa: E402
from body4d_engine.models.sam_3d_body.fusion import Fusion, Hands  # noqa: E402
from body4d_engine.models.sam_3d_body.rotations import matrix_from_xyz, matrix_from_xzy, xyz_from_matrix, xzy_from_matrix  # noqa: E402

from .sam_3d_body_nets import TINY_VIT, camera, frame, network, people  # noqa: E402

CLOSE = 1e-4                                             # metres
METRES = ("pred_vertices", "pred_keypoints_3d", "pred_cam_t", "pred_joint_coords")


@pytest.fixture(scope="module", params=["dinov3", "vit"])
def model(request):
    torch.set_num_threads(1)
    return network(seed=3) if request.param == "dinov3" else network(TINY_VIT)


@pytest.fixture(scope="module")
def tiny():
    return network(seed=3)


@pytest.fixture
def lenient(monkeypatch):
    """Limits with which some hands of these random networks are used and some refused."""
    for name, limit in (("LARGEST_TURN", 2.4), ("LARGEST_DISTANCE", 1.0), ("SMALLEST_CROP", 48.0)):
        monkeypatch.setattr(fusion, name, limit)


def near(first: dict, second: dict, rows=slice(None)) -> None:
    for name, value in first.items():
        limit = 0.02 if name.endswith(("2d", "bbox")) else CLOSE if name in METRES else 2e-3       # pixels, metres, angles
        assert torch.allclose(value[rows].float(), second[name].float(), atol=limit, rtol=1e-4), (name, (value[rows].float() - second[name]).abs().max())


@pytest.mark.parametrize("mode", ["body", "full"])
def test_a_crop_does_not_depend_on_the_others(model, lenient, mode):
    """Fails if invalid wrist prompts are dropped for one person and kept for several, if crops take another frame's pixels, camera or mask, or if anything
    is normalised over the batch."""
    items = people()
    together = model.infer(items, mode)
    assert (together["pred_vertices"][:, None] - together["pred_vertices"][None]).norm(dim=-1).mean(dim=-1).max() > 0.01       # the crops do differ
    assert mode == "body" or 0 < together["hands_used"].sum() < 10
    for index, item in enumerate(items):
        near(together, model.infer([item], mode), slice(index, index + 1))
    order = [3, 0, 4, 2, 1]
    near({name: value[order] for name, value in together.items()}, model.infer([items[index] for index in order], mode))


@pytest.mark.parametrize("mode", ["body", "full"])
def test_the_principal_point_is_honoured(model, lenient, mode):
    """The same picture on a wider frame, its camera moved along, gives the same body. Fails if anything takes the frame's middle for the camera's, in the
    2D points, the camera translation, the rays, or for the mirrored left hand."""
    small, wide = frame(160, 120, seed=5), np.zeros((140, 260, 3), np.uint8)
    wide[9:129, 61:221] = small
    box, K = np.array([50, 25, 100, 95]), camera(off=9)
    moved = K + np.array([[0, 0, 61], [0, 0, 9], [0, 0, 0]])
    here, there = model.infer([CropInput(small, box, K)], mode), model.infer([CropInput(wide, box + np.array([61, 9, 61, 9]), moved)], mode)
    for name in ("pred_vertices", "pred_cam_t", "mhr_model_params"):
        assert torch.allclose(here[name], there[name], atol=CLOSE), name
    assert torch.allclose(here["pred_keypoints_2d"] + torch.tensor([61.0, 9.0]), there["pred_keypoints_2d"], atol=0.02)
    points = here["pred_keypoints_3d"] + here["pred_cam_t"][:, None]
    assert torch.allclose((points / points[..., 2:] @ torch.tensor(K).float().T)[..., :2], here["pred_keypoints_2d"], atol=1e-3)


@pytest.mark.parametrize("mode", ["body", "full"])
def test_a_result_can_be_rebuilt_from_its_parameters(tiny, lenient, mode):
    """Fails where rotations or joints are those from before the hands were put on."""
    found = tiny.infer(people(), mode)
    vertices, skeleton = tiny.mhr(found["shape_params"], found["mhr_model_params"])
    flip = torch.tensor([1.0, -1.0, -1.0])
    assert torch.allclose(vertices / 100 * flip, found["pred_vertices"], atol=1e-5)
    assert torch.allclose(skeleton[..., :3] / 100 * flip, found["pred_joint_coords"], atol=1e-5)
    transforms = tiny.mhr.transforms(found["mhr_model_params"])[..., :3, :3]
    assert torch.allclose(transforms / transforms.norm(dim=-2, keepdim=True), found["pred_global_rots"], atol=1e-5)
    assert mode == "body" or found["hands_used"].any()


def test_masks_are_zero_and_one(tiny):
    """Fails if a mask of 0 and 255 is fed as such, or if a mask changes nothing."""
    items = people()[:1]
    loud = [dataclasses.replace(items[0], mask=items[0].mask.astype(np.uint8) * 255)]
    near(tiny.infer(items, "body"), tiny.infer(loud, "body"))
    bare = tiny.infer([dataclasses.replace(items[0], mask=None)], "body")
    assert (bare["pred_vertices"] - tiny.infer(items, "body")["pred_vertices"]).norm(dim=-1).max() > 10 * CLOSE


def test_hands_are_cut_from_rgb(tiny, monkeypatch):
    """Fails if hand crops come from a picture with red and blue exchanged, as in SAM-Body4D."""
    seen = []
    encode = tiny.encode
    monkeypatch.setattr(tiny, "encode", lambda crops, *rest: seen.append(crops) or encode(crops, *rest))
    red = np.zeros((120, 160, 3), np.uint8)
    red[..., 0] = 255
    tiny.infer([CropInput(red, np.array([40, 20, 120, 100]), camera())], "full")
    assert [len(crops) for crops in seen] == [1, 2]       # both hands in one batch
    for crops in seen:
        assert crops[:, 0].max() == 255 and crops[:, 1:].max() == 0


def hands_at(boxes):
    """Stands in for the box layer: the same boxes for everyone, (2, 4) from 0 to 1 in the crop, left and right."""
    logits = torch.logit(torch.tensor(boxes))
    return lambda tokens: logits.expand(len(tokens), 2, 4)


def test_a_left_hand_is_a_mirrored_right_hand(tiny, monkeypatch):
    """Fails if the left hand's picture, box, camera or answer is not mirrored, or mirrored twice."""
    items = [CropInput(frame(seed=3), np.array([30, 10, 110, 110]), camera(off=11))]
    K = items[0].K.copy()
    K[0, 2] = 159 - K[0, 2]
    flipped = [CropInput(np.ascontiguousarray(items[0].image[:, ::-1]), np.array([159 - 110, 10, 159 - 30, 110]), K)]
    found = []
    for crops, boxes in ((items, [[0.3, 0.4, 0.3, 0.2], [0.8, 0.6, 0.25, 0.3]]), (flipped, [[0.2, 0.6, 0.25, 0.3], [0.7, 0.4, 0.3, 0.2]])):
        monkeypatch.setattr(tiny.hand_box, "forward", hands_at(boxes))
        with torch.inference_mode():
            packed = pack(crops, "cpu")
            view = View(packed.centre, packed.side, packed.K, 64)
            image = tiny.encode(cut(packed.frames, packed.frame_of, packed.centre, packed.side, 64), None, packed.has_mask)
            found.append(tiny._hands(packed, tiny._body(image, view, "keypoints"), view)[1])
    here, there = found
    for side in (0, 1):
        for name in ("code", "shape", "shared_scale", "side"):
            assert torch.allclose(getattr(here, name)[:, side], getattr(there, name)[:, 1 - side], atol=2e-3), name
        mirrored = torch.stack([159 - there.wrist[:, 1 - side, 0], there.wrist[:, 1 - side, 1]], dim=-1)
        assert torch.allclose(here.wrist[:, side], mirrored, atol=0.02)
    assert not torch.allclose(here.code[:, 0], here.code[:, 1], atol=0.01)


def test_a_wrist_is_measured_in_its_own_crop():
    """Fails if the left hand's distance is divided by the right hand's crop, as published."""
    fusion, still = Fusion(), torch.eye(3).expand(1, 127, 3, 3)
    pose = type("Pose", (), {"body": torch.zeros(1, 133)})
    pixels = torch.zeros(1, 70, 2)
    first = type("Estimate", (), {"pose": pose, "body": type("Body", (), {"rotations": still}), "projection": type("Projection", (), {"pixels": pixels})})
    hands = Hands(torch.eye(3).expand(1, 2, 3, 3), torch.zeros(1, 2, 54), torch.zeros(1, 2), torch.zeros(1, 2, 10), torch.zeros(1, 2, 5),
                  wrist=torch.tensor([[[30.0, 0.0], [30.0, 0.0]]]), side=torch.tensor([[200.0, 100.0]]), inside=torch.ones(1, 2, dtype=torch.bool))
    assert fusion.accept(first, still[0], hands).tolist() == [[True, False]]
    for change in ({"side": torch.tensor([[64.0, 500.0]])}, {"inside": torch.tensor([[False, True]]), "side": torch.tensor([[200.0, 500.0]])},
                   {"rotation": matrix_from_xyz(torch.tensor([[[1.5, 0, 0], [1.3, 0, 0]]])), "side": torch.tensor([[200.0, 500.0]])}):
        assert fusion.accept(first, still[0], dataclasses.replace(hands, **change)).tolist() == [[False, True]]


def test_only_accepted_hands_are_put_on(tiny):
    """Fails if a refused hand leaks into the pose, the scale or the shape, or an accepted one does not arrive."""
    torch.manual_seed(3)
    with torch.inference_mode():
        packed = pack(people()[:2], "cpu")
        view = View(packed.centre, packed.side, packed.K, 64)
        pose = tiny._body(tiny.encode(cut(packed.frames, packed.frame_of, packed.centre, packed.side, 64), None, packed.has_mask), view, "nothing").pose
    turned = matrix_from_xzy(torch.tensor([[[0.2, 0.3, 0.4], [-0.5, 0.1, 0.2]]])).expand(2, 2, 3, 3)
    hands = Hands(turned, torch.randn(2, 2, 54), torch.randn(2, 2), torch.randn(2, 2, 10), torch.randn(2, 2, 5), torch.randn(2, 2, 2), torch.ones(2, 2),
                  torch.ones(2, 2, dtype=torch.bool))
    accepted = torch.tensor([[True, False], [False, False]])
    merged, used = tiny.fusion.merge(pose, hands, accepted, turned, turned)
    assert used.equal(accepted)
    assert torch.equal(merged.hand[0, :54], hands.code[0, 0]) and torch.equal(merged.hand[0, 54:], pose.hand[0, 54:])
    assert torch.allclose(merged.body[0, [41, 43, 42]], torch.tensor([0.2, 0.3, 0.4]), atol=1e-5)
    assert torch.equal(merged.scale[0, 18:], hands.shared_scale[0, 0])
    assert merged.scale[0, 9] == hands.own_scale[0, 0] and merged.scale[0, 8] == pose.scale[0, 8]
    assert torch.equal(merged.shape[0, 40:], hands.shape[0, 0]) and torch.equal(merged.shape[0, :40], pose.shape[0, :40])
    for name in ("hand", "body", "scale", "shape"):
        assert torch.equal(getattr(merged, name)[1], getattr(pose, name)[1]), name
    both, _ = tiny.fusion.merge(pose, hands, torch.ones(2, 2, dtype=torch.bool), turned, turned)
    assert torch.allclose(both.shape[:, 40:], hands.shape.mean(dim=1))
    none, used = tiny.fusion.merge(pose, hands, torch.ones(2, 2, dtype=torch.bool), turned @ matrix_from_xyz(torch.tensor([1.5, 0.0, 0.0])), turned)
    assert not used.any() and torch.equal(none.hand, pose.hand)


def test_distrusted_points_become_dummies(tiny):
    """Fails if a refused wrist is prompted, if an elbow is prompted beside it, or a point outside the crop is."""
    view = View(torch.tensor([[50.0, 50.0]]), torch.tensor([100.0]), torch.eye(3)[None], 64)
    pixels = torch.full((1, 70, 2), 30.0)
    first = type("Estimate", (), {"projection": type("Projection", (), {"pixels": pixels})})
    hands = type("Hands", (), {"wrist": torch.tensor([[[80.0, 40.0], [20.0, 60.0]]])})
    points, labels = tiny.fusion.prompts(first, hands, torch.tensor([[True, True]]), view)
    assert labels.tolist() == [[41, 62, 8, 7]]
    assert torch.allclose(points, torch.tensor([[[0.2, 0.6], [0.8, 0.4], [0.3, 0.3], [0.3, 0.3]]]))
    assert tiny.fusion.prompts(first, hands, torch.tensor([[True, False]]), view)[1].tolist() == [[-2, 62, -2, 7]]
    hands.wrist = torch.tensor([[[80.0, 101.0], [20.0, 60.0]]])
    assert tiny.fusion.prompts(first, hands, torch.tensor([[True, True]]), view)[1].tolist() == [[41, -2, 8, 7]]


def test_mhr_makes_the_mesh_once(tiny, monkeypatch):
    """Fails if an inner step evaluates more vertices than the keypoints use, or hands are decoded one by one."""
    asked = []
    posed = tiny.mhr.posed
    monkeypatch.setattr(tiny.mhr, "posed", lambda shape, parameters, face, vertices: asked.append(vertices) or posed(shape, parameters, face, vertices))
    tiny.infer(people(), "body")
    assert [vertices is None for vertices in asked] == [False, True]
    asked.clear()
    tiny.infer(people(), "full")
    assert [vertices is None for vertices in asked] == [False] * 5 + [True]          # body 2, hands 2, second look 1, the mesh
    mapping, used = tiny.body.pose_head.keypoint_mapping[:, :200], tiny.body.pose_head.keypoint_vertices
    assert 0 < len(used) < 200 and set(mapping.nonzero()[:, 1].tolist()) == set(used.tolist())
    assert len(tiny.hand.pose_head.keypoint_vertices) < len(used)


def test_nothing_is_nan(tiny, monkeypatch):
    """A box outside the frame, hands of no size, keypoints in the plane of the camera. Fails if a number that is not finite reaches a token."""
    monkeypatch.setattr(tiny.hand_box, "forward", hands_at([[0.5, 0.5, 0.0, 0.0], [0.0, 1.0, 1e-12, 0.0]]))
    items = [CropInput(frame(), np.array([500, 500, 540, 560]), camera()), CropInput(frame(), np.array([0, 0, 1, 1]), camera())]
    for name, value in tiny.infer(items, "full").items():
        assert value.isfinite().all(), name


def test_a_keypoint_in_the_plane_of_the_camera(tiny, monkeypatch):
    """Fails if its pixel, which is not finite, is multiplied by zero instead of left out."""
    project = tiny.body.camera_head.project

    def at_depth_zero(keypoints, camera, view):
        seen = project(keypoints, camera, view)
        return dataclasses.replace(seen, in_crop=seen.in_crop / 0, depth=seen.depth * 0)

    monkeypatch.setattr(tiny.body.camera_head, "project", at_depth_zero)
    assert tiny.infer(people(), "body")["pred_vertices"].isfinite().all()


@pytest.mark.parametrize("box, K", [([10, 10, 10, 50], camera()), ([0, 0, 0, 0], camera()), ([50, 10, 20, 60], camera()), ([np.nan, 0, 5, 5], camera()),
                                    ([10, 10, 50, 60], camera() * 0)])
def test_empty_crops_are_refused(tiny, box, K):
    """Fails if an empty box reaches the network, where it makes NaN."""
    with pytest.raises(Body4DError) as refused:
        tiny.infer([*people(), CropInput(people()[0].image, np.array(box), K)], "body")
    assert refused.value.code == "empty_crop" and "5" in refused.value.message


def test_other_misuse_is_refused(tiny):
    for items, mode, code in (([], "body", "empty_crop"), (people(), "hand", "mode"), ([*people(), CropInput(frame(100, 80), np.array([1, 1, 9, 9]), camera())],
                                                                                       "body", "frame_sizes")):
        with pytest.raises(Body4DError) as refused:
            tiny.infer(items, mode)
        assert refused.value.code == code


def test_crops_against_plain_loops():
    """Fails on a shift by half a pixel, a border that repeats, truncation instead of rounding, and a wrong mirror."""
    image = frame(40, 30, seed=9)
    centre, side, size = (12.3, 20.6), 37.0, 16
    expected = np.zeros((size, size, 3))
    for row in range(size):
        for column in range(size):
            x, y = ((index - size / 2) * side / size + middle for index, middle in zip((column, row), centre))
            for dx in (0, 1):
                for dy in (0, 1):
                    i, j = int(np.floor(x)) + dx, int(np.floor(y)) + dy
                    if 0 <= i < 40 and 0 <= j < 30:
                        expected[row, column] += image[j, i].astype(float) * (1 - abs(x - i)) * (1 - abs(y - j))
    frames = torch.from_numpy(np.stack([image * 0, image, image[:, ::-1]]))
    where, sides = torch.tensor([list(centre)] * 3), torch.full((3,), side)
    found = cut(frames, torch.tensor([1, 2, 0]), where, sides, size, torch.tensor([False, True, False]))
    assert np.abs(found[0].permute(1, 2, 0).numpy() - expected).max() <= 0.5 + 1e-3 and torch.equal(found[0], found[0].round())
    assert torch.equal(found[0], found[1]) and found[2].max() == 0
    packed = pack([CropInput(image, np.array([2, 4, 12, 24]), camera()), CropInput(image, np.array([2, 4, 32, 24]), camera())], "cpu")
    assert torch.allclose(packed.side, torch.tensor([25.0, 50.0])) and torch.allclose(packed.centre, torch.tensor([[7.0, 14.0], [17.0, 14.0]]))
    assert len(packed.frames) == 1 and crops_module.hand_side(torch.tensor(10.0)) == pytest.approx(12.0)
    assert crops_module.hand_side(torch.tensor(0.0)) > 1                             # no crop has a side of zero


def test_wrists_turn_as_the_hand_crops_have_them():
    """Fails if left and right, the forearm and the twist joint, or a rotation and its inverse are exchanged."""
    torch.manual_seed(2)
    rotations, at_rest, local = (matrix_from_xyz(torch.randn(*shape, 3)) for shape in ((2, 127), (127,), (2, 2)))
    turned = torch.stack([rotations[:, 76] @ at_rest[77] @ local[:, 0], rotations[:, 40] @ at_rest[41] @ local[:, 1]], dim=1)
    hands = type("Hands", (), {"rotation": turned})
    assert torch.allclose(Fusion().wrists_wanted(rotations, at_rest, hands), local, atol=1e-5)
    body = torch.zeros(1, 133)
    body[0, [41, 43, 42, 31, 33, 32]] = torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    wanted = matrix_from_xzy(torch.tensor([[[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]]))
    assert torch.allclose(Fusion().wrists_before(type("Pose", (), {"body": body})), wanted)


def test_rotations_and_wrist_limits():
    """Fails on an exchanged axis or sign, and if another rotation is chosen for the limits' sake."""
    torch.manual_seed(0)
    angles = torch.randn(200, 2, 3) * torch.tensor([1.0, 0.5, 1.0])
    x, y, z = (matrix_from_xyz(torch.nn.functional.one_hot(torch.tensor(axis), 3) * 0.3) for axis in range(3))
    assert torch.allclose(matrix_from_xyz(torch.full((3,), 0.3)), z @ y @ x, atol=1e-6)
    assert torch.allclose(matrix_from_xzy(torch.full((3,), 0.3)), x @ z @ y, atol=1e-6)
    assert torch.allclose(matrix_from_xyz(xyz_from_matrix(matrix_from_xyz(angles))), matrix_from_xyz(angles), atol=1e-5)
    read = xzy_from_matrix(matrix_from_xzy(angles * 2))
    kept = Fusion()._within_limits(read)
    assert torch.allclose(matrix_from_xzy(kept), matrix_from_xzy(angles * 2), atol=1e-5)
    assert ((kept - read).abs().amax(dim=-1) > 0.1).any()                            # some were outside


def test_nothing_waits_for_the_device(tiny):
    """Runs on tensors without values. Fails if a number has to be known on the way: .item(), nonzero, a mask as index, a branch."""
    from torch._subclasses.fake_tensor import FakeTensorMode
    packed = pack(people(), "cpu")
    tiny.infer(packed, "full")                           # MHR cuts its tables for the keypoints once
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        found = tiny.infer(type(packed)(*(fake.from_tensor(part) for part in vars(packed).values())), "full")
    assert found["pred_vertices"].shape == (5, 200, 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batches_of_any_size(dtype, monkeypatch):
    """Fails if the batch size changes a result, if a last, smaller batch is lost, or in bfloat16 if company changes a bit."""
    model = network().backbone_to(dtype)
    packed = pack(people(), "cpu")
    whole = model.infer(packed, "full")

    def run(crops, size):
        parts = list(model.infer_in_batches(crops, "full", size))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

    if dtype == torch.float32:
        for size in (1, 2, 5, 8):
            near(whole, run(packed, size))
        return
    threes = run(packed, 3)
    order = torch.tensor([3, 1, 4, 0, 2])                # in the same places, in other company: 1 in the middle, 3 and 0 in front
    shuffled = run(packed.take(order), 3)
    for name, value in threes.items():
        assert len(value) == 5 and torch.equal(value[[0, 1, 3]], shuffled[name][[3, 1, 0]]), name
    sizes, infer = [], model.infer
    monkeypatch.setattr(model, "infer", lambda crops, mode: sizes.append(len(crops)) or infer(crops, mode))
    full_batch = run(packed.take(torch.tensor([3, 4, 0, 1])), 3)
    assert sizes == [3, 3] and torch.equal(threes["pred_vertices"][3:], full_batch["pred_vertices"][:2])
    assert (threes["pred_vertices"] - whole["pred_vertices"]).norm(dim=-1).max() < 0.05


def test_lower_precision_around_it_changes_nothing(tiny):
    torch.set_float32_matmul_precision("medium")
    try:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            inside = tiny.infer(people(), "full")
        assert torch.get_float32_matmul_precision() == "medium"                      # and it changes nothing around it
    finally:
        torch.set_float32_matmul_precision("highest")
    near(inside, tiny.infer(people(), "full"))
