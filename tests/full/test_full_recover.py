# SPDX-License-Identifier: Apache-2.0
"""Full recover with a tiny random network: what the take holds, gaps, odd people, resume, and that a result is a person's own."""

import numpy as np
import pytest

pytest.importorskip("torch")
import torch  # noqa: E402
from scipy.spatial.transform import Rotation  # noqa: E402

from body4d_engine.backends import Full  # noqa: E402
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.events import Committed, Notice, Progress  # noqa: E402
from body4d_engine.imports.mhr70 import MHR70  # noqa: E402
from body4d_engine.models.mhr.names import JOINT_NAMES  # noqa: E402
from body4d_engine.models.sam_3d_body.crops import CropInput  # noqa: E402
from body4d_engine.people import Correction, Person  # noqa: E402
from body4d_engine.pipeline import stage_keys  # noqa: E402
from body4d_engine.stages.full.recover import Recover  # noqa: E402
from body4d_engine.stages.full.records import FOUND, POINTS  # noqa: E402
from body4d_engine.stages.full.sightings import Shape, trusted  # noqa: E402
from body4d_engine.take import State, Take  # noqa: E402

from ..engine.tracked import run_stage  # noqa: E402
from .masked import CENTRE, FOCAL, Pictures, blob, masked_take, states  # noqa: E402
from .sam_3d_body_nets import frame, network  # noqa: E402

ARRAYS = ("vertices", "state", "confidence", *FOUND, *POINTS)


@pytest.fixture(scope="module")
def net():
    return network()


def stage(net, **options) -> Recover:
    return Recover(**{"networks": lambda: net, "hands": False, "batch": 4, **options})


def recovered(path, people: dict[int, str], recover: Recover, shots=(0,), **options):
    clip = Pictures(len(next(iter(people.values()))), shots=shots)
    take, persons = masked_take(path, clip, {number: states(text) for number, text in people.items()}, **options)
    events = run_stage(recover, take, persons, clip)
    return take, events, clip


def arrays(take, person: int = 1) -> dict[str, np.ndarray]:
    return {name: np.array(take.by_sample(f"people/{person}", name, "recover")) for name in ARRAYS}


def assert_close(ours: dict, theirs: dict, tolerance: float = 1e-4) -> None:
    for name, values in ours.items():
        np.testing.assert_allclose(values, theirs[name], rtol=0, atol=tolerance * (100 if name == "keypoints_px" else 1), err_msg=name)


def matrices(rotations: np.ndarray) -> np.ndarray:
    return Rotation.from_quat(rotations[..., [1, 2, 3, 0]].reshape(-1, 4)).as_matrix().reshape(*rotations.shape[:-1], 3, 3)


@pytest.mark.parametrize("hands", [False, True])
def test_a_record_is_what_the_network_says_of_the_crop(tmp_path, net, hands):
    """Fails where the box is not the mask's, the principal point is lost or off by the half pixel, points keep MHR's origin, or rotations are not from rest."""
    take, _, clip = recovered(tmp_path / "a.take", {1: "vvv", 3: "vvv"}, stage(net, hands=hands))
    mask = blob(clip, 3, 1)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    K = np.array([[FOCAL, 0, CENTRE[0] - 0.5], [0, FOCAL, CENTRE[1] - 0.5], [0, 0, 1]])
    box = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    said = {name: value[0].numpy() for name, value in net.infer([CropInput(frame(seed=1), box, K, mask)], "full" if hands else "body").items()}
    found = {name: values[1] for name, values in arrays(take, 3).items()}
    for name, theirs in {"vertices": "pred_vertices", "joints": "pred_joint_coords", "keypoints_m": "pred_keypoints_3d"}.items():
        np.testing.assert_allclose(found[name] + found["root"], said[theirs] + said["pred_cam_t"], atol=1e-5, err_msg=name)
    np.testing.assert_array_equal(found["joints"][1], 0)
    np.testing.assert_allclose(found["keypoints_px"][:, :2], said["pred_keypoints_2d"] + 0.5, atol=0.01)
    for name, theirs in {"params": "mhr_model_params", "shape": "shape_params", "scale": "scale_params", "hands": "hand_pose_params"}.items():
        np.testing.assert_allclose(found[name], said[theirs], atol=1e-5, err_msg=name)
    posed, rest = (net.mhr.camera_rotations(torch.from_numpy(params)[None])[0].numpy() for params in (found["params"], 0 * found["params"]))
    np.testing.assert_allclose(matrices(found["rotations"]), posed @ rest.transpose(0, 2, 1), atol=1e-5)
    assert found["state"] == State.VISIBLE and 0 <= found["confidence"] <= 0.9
    take.close()


def test_what_a_reader_relies_on(tmp_path, net):
    """The body file hangs together: skinned by the take's rotations about its rest, a vertex of one joint lands where it was written. Fails for rest and
    rotations of different axes or a wrong inverse bind."""
    body_model = network(seed=3)
    body_model.mhr.corrective_values.zero_()
    body_model.body.pose_head.scale_mean.zero_()
    body_model.body.pose_head.scale_comps.zero_()
    body_model.body.pose_head.proj[2].weight[266:311].zero_()
    body_model.body.pose_head.proj[2].bias[266:311].zero_()
    body_model.body.initial_pose[:, 266:311].zero_()
    single = body_model.mhr.weights.argmax(1)
    body_model.mhr.weights.copy_(torch.nn.functional.one_hot(single, 127).float())
    take, _, _ = recovered(tmp_path / "a.take", {1: "vv"}, stage(body_model))
    found, body = arrays(take), take.body(1)
    assert np.abs(found["shape"]).max() == 0  # so that the body at rest is everybody's
    assert list(body["joint_names"]) == list(JOINT_NAMES) and list(body["keypoint_names"]) == list(MHR70) and str(body["model"]) == "MHR"
    assert body["parents"][:2].tolist() == [-1, 0] and body["faces"].max() < len(body["rest_vertices_m"]) and body["faces"].dtype == np.int32
    np.testing.assert_array_equal(np.diff(body["skin_indptr"]), 1)
    joint = body["skin_indices"]
    turned = np.einsum("nvab,vb->nva", matrices(found["rotations"])[:, joint], body["rest_vertices_m"] - body["rest_joints_m"][joint])
    # scale parameters reach bones through the pose's lengths, so distances from the joint are compared up to the joint's scale
    reached = found["vertices"] - found["joints"][:, joint]
    share = np.linalg.norm(reached, axis=-1) / np.linalg.norm(turned, axis=-1)
    np.testing.assert_allclose(reached, turned * share[..., None], atol=1e-4)
    np.testing.assert_allclose(body["inverse_binds"] @ np.pad(body["rest_joints_m"], ((0, 0), (0, 1)), constant_values=1)[..., None],
                               np.tile([[0], [0], [0], [1]], (127, 1, 1)), atol=1e-5)
    take.close()


def test_joint_names_are_the_published_ones(shared):
    import json

    known = json.loads((shared / "data/sam_3d_body/mhr_skeleton.json").read_text())
    assert list(JOINT_NAMES) == known["names"]


@pytest.mark.parametrize("options", [{"batch": 1}, {"batch": 5, "chunk": 1}, {"batch": 64, "chunk": 3}])
def test_batches_and_chunks_do_not_matter(tmp_path, net, options):
    """Fails where a row goes to another person or frame when a frame's people fall into two batches."""
    people = {1: "vvvvvvvv", 3: "-vvvov--", 4: "vvooovvv"}
    a, _, clip = recovered(tmp_path / "a.take", people, stage(net, batch=3))
    b, _, _ = recovered(tmp_path / "b.take", people, stage(net, **options))
    assert clip.decoded == list(range(8))  # each once
    for person in people:
        assert_close(arrays(a, person), arrays(b, person))
    a.close(), b.close()


@pytest.mark.parametrize("kill_after", [1, 2, 3, 4, 5])
def test_killed_and_resumed_is_the_same(tmp_path, net, kill_after):
    """Fails where a gap that was open at the kill is interpolated from elsewhere, or a sample is written twice or never."""
    people = {1: "ovvvvvvoovvvo", 3: "---vvvvvvvooo"}
    whole, _, clip = recovered(tmp_path / "whole.take", people, stage(net))
    take, persons = masked_take(tmp_path / "cut.take", clip, {number: states(text) for number, text in people.items()})
    run_stage(stage(net, chunk=1), take, persons, clip, stop_after=kill_after)
    take.close()
    take = Take.open(tmp_path / "cut.take", writable=True)
    events = run_stage(stage(net), take, persons, clip)
    assert not any(isinstance(event, Notice) for event in events)
    for person in people:
        assert len(arrays(take, person)["state"]) == 13
        assert_close(arrays(whole, person), arrays(take, person))
    whole.close(), take.close()


def test_what_is_hidden_lies_between(tmp_path, net):
    """Fails for Euler angles blended one by one, a root that does not move evenly, meshes that are not of the parameters, or a gap taken for measured."""
    take, _, clip = recovered(tmp_path / "a.take", {1: "vooov"}, stage(net))
    found = arrays(take)
    assert clip.decoded == [0, 4]
    np.testing.assert_array_equal(found["state"], states("vooov"))
    np.testing.assert_array_equal(found["confidence"][1:4], 0)
    np.testing.assert_array_equal(found["keypoints_px"][1:4, :, 2], 0)
    np.testing.assert_allclose(found["root"], np.linspace(found["root"][0], found["root"][4], 5), atol=1e-5)
    turned = Rotation.from_euler("xyz", found["params"][:, 3:6])  # the root's, Rz Ry Rx
    apart = (turned[0].inv() * turned).magnitude()
    np.testing.assert_allclose(apart, np.linspace(0, apart[4], 5), atol=1e-4)
    assert apart[4] > 0.1
    params, shape = torch.from_numpy(found["params"]), torch.from_numpy(found["shape"])
    vertices, transforms = net.mhr.posed(shape, params)
    root = net.mhr.to_camera(transforms[:, 1:2, :3, 3])
    np.testing.assert_allclose(found["vertices"], (net.mhr.to_camera(vertices) - root).numpy(), atol=1e-5)
    pixels = found["keypoints_m"] + found["root"][:, None]
    np.testing.assert_allclose(found["keypoints_px"][..., :2], FOCAL * pixels[..., :2] / np.maximum(pixels[..., 2:], 0.05) + CENTRE, atol=0.02)
    take.close()


def test_nobody_is_followed_over_a_cut_or_an_absence(tmp_path, net):
    """Before it a body stays as it was, after it it is as it will be."""
    for name, text, shots, early in (("cut", "voooov", (0, 3), [1, 2]), ("away", "vo--ov", (0,), [1, 2, 3]), ("late cut", "voooov", (0, 5), [1, 2, 3, 4])):
        take, _, _ = recovered(tmp_path / f"{name}.take", {1: text}, stage(net), shots)
        found = arrays(take)
        for sample in range(1, 5):
            like = 0 if sample in early else 5
            np.testing.assert_array_equal(found["vertices"][sample], found["vertices"][like], err_msg=f"{name} {sample}")
            np.testing.assert_array_equal(found["params"][sample], found["params"][like])
        assert np.abs(found["vertices"][0] - found["vertices"][5]).max() > 1e-3
        take.close()


def test_odd_people(tmp_path, net):
    """Ids 1 and 3, an empty mask on the first frame, on all frames, and somebody who is never there: nothing is a number that is none."""
    take, events, _ = recovered(tmp_path / "a.take", {1: "ovvv", 3: "oooo", 4: "----", 7: "--vv"}, stage(net))
    first, never, late = (arrays(take, person) for person in (1, 3, 7))
    np.testing.assert_array_equal(first["vertices"][0], first["vertices"][1])
    np.testing.assert_array_equal(never["root"], np.tile([0, 0, 4], (4, 1)))
    np.testing.assert_array_equal(never["state"], State.OCCLUDED)
    assert take.by_sample("people/7", "root", "recover").span == (2, 4) and late["state"].tolist() == [0, 0, 1, 1]
    assert take.count("people/4", "root", "recover") == 0
    told = [(event.code, event.person) for event in events if isinstance(event, Notice)]
    assert told == [("person_never_seen", 3), ("person_never_seen", 4), ("no_gpu", None)]
    assert all(np.isfinite(values).all() for found in (first, never, late) for values in found.values())
    take.close()


def test_nobody_at_all(tmp_path):
    """No network is built where there is nothing to do."""
    take, _, clip = recovered(tmp_path / "a.take", {1: "---"}, Recover(networks=lambda: pytest.fail("a network was built")))
    assert not clip.decoded
    take.close()


def test_visible_without_a_mask_counts_as_hidden(tmp_path, net):
    clip = Pictures(3)
    take, persons = masked_take(tmp_path / "a.take", clip, {1: states("vov")})
    state = take.file_of("people/1", "state", "track")
    state.write_bytes(bytes([1, 1, 1]))
    run_stage(stage(net), take, persons, clip)
    np.testing.assert_array_equal(arrays(take)["state"], states("vov"))
    take.close()


def test_it_streams(tmp_path, net):
    """Everyone's samples come together, as the clip goes on; a batch is filled across frames."""
    sizes, infer = [], net.infer

    def counted(crops, mode):
        sizes.append(len(crops))
        return infer(crops, mode)

    net.infer = counted
    try:
        take, events, _ = recovered(tmp_path / "a.take", {1: "vvvvvvvvv", 2: "vvvvvvvvv", 3: "vvv---vvv"}, stage(net, chunk=2, batch=4))
    finally:
        del net.infer
    assert sizes == [4] * 6
    streamed = [(event.person, event.start, event.stop) for event in events if isinstance(event, Committed)]
    assert len(streamed) > 6 and {person for person, _, stop in streamed[:4] if stop < 9} == {1, 2, 3}
    steps = [event.done for event in events if isinstance(event, Progress)]
    assert steps == sorted(steps) and steps[-1] == 9
    take.close()


def test_a_lack_of_memory_halves_the_batch(tmp_path, net):
    """Crops are not lost, doubled or mixed up when a batch is cut; with not even one crop it is told."""
    people = {1: "vvvvv", 2: "vvvvv"}
    whole, _, _ = recovered(tmp_path / "whole.take", people, stage(net))
    most, infer = 2, net.infer

    def small(crops, mode):
        if len(crops) > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1 GiB")
        return infer(crops, mode)

    net.infer = small
    try:
        take, _, _ = recovered(tmp_path / "small.take", people, stage(net, batch=7))
        most = 0
        with pytest.raises(Body4DError) as error:
            recovered(tmp_path / "none.take", people, stage(net, batch=7))
    finally:
        del net.infer
    assert error.value.code == "out_of_memory"
    for person in people:
        assert_close(arrays(whole, person), arrays(take, person))
    whole.close(), take.close()


def test_a_lost_device_is_gone_on_from(tmp_path, net):
    people, left, infer = {1: "vvvvvv", 2: "vvvvvv"}, 2, net.infer
    whole, _, clip = recovered(tmp_path / "whole.take", people, stage(net))

    def dies(crops, mode):
        nonlocal left
        left -= 1
        if left < 0:
            raise torch.AcceleratorError("CUDA error: unspecified launch failure\nmore")
        return infer(crops, mode)

    take, persons = masked_take(tmp_path / "a.take", clip, {number: states(text) for number, text in people.items()})
    net.infer = dies
    try:
        with pytest.raises(torch.AcceleratorError):  # which `pipeline` tells in words, see test_memory_faults.py
            run_stage(stage(net, chunk=1), take, persons, clip)
    finally:
        del net.infer
    take.close()
    take = Take.open(tmp_path / "a.take", writable=True)
    assert take.count("people/1", "root", "recover") > 0
    run_stage(stage(net), take, persons, clip)
    for person in people:
        assert_close(arrays(whole, person), arrays(take, person))
    whole.close(), take.close()


def test_low_precision_batches_have_one_shape(tmp_path):
    """bfloat16: at the same batch size a crop's result does not depend on how many are left for the last batch."""
    net = network().backbone_to(torch.bfloat16)
    a, _, _ = recovered(tmp_path / "a.take", {1: "vvvvvv"}, stage(net, batch=4))
    b, _, _ = recovered(tmp_path / "b.take", {1: "vvvvv-"}, stage(net, batch=4))
    np.testing.assert_array_equal(arrays(a)["vertices"][:5], arrays(b)["vertices"][:5])
    a.close(), b.close()


def test_neither_heights_nor_corrections_ask_the_network_again():
    """`refine` acts upon them: its key depends on what is said of bodies, that of `recover` on nothing of it."""
    stages = Full().stages({})
    said = [Person(1, height_m=1.8, corrections=[Correction(1, 1, "sides")])]
    before, after = (stage_keys(stages, Pictures(4), people, "full") for people in ([Person(1)], said))
    assert [name for name in before if before[name] != after[name]] == ["refine"]


def test_confidence_is_tracking_s_and_how_well_the_body_lies_on_the_mask(tmp_path, net, monkeypatch):
    asked = []

    def half(pixels, own, others, width, height):
        asked.append((own.box.tolist(), len(others)))
        return np.linspace(0, 1, 70, dtype=np.float32), 0.5

    monkeypatch.setattr("body4d_engine.stages.full.recover.trusted", half)
    take, _, _ = recovered(tmp_path / "a.take", {1: "vv", 2: "ov"}, stage(net), confidence=0.8)
    found = arrays(take)
    np.testing.assert_allclose(found["confidence"], 0.4, atol=1e-6)
    np.testing.assert_allclose(found["keypoints_px"][..., 2], np.tile(np.linspace(0, 1, 70), (2, 1)), atol=1e-6)
    assert [others for _, others in asked] == [0, 1, 1]
    take.close()


def test_how_far_keypoints_are_trusted():
    """Outside the frame and behind somebody else: not at all; the share counts those of the body on the person's own mask."""
    own, other = Shape(10, 10, np.ones((20, 20), bool)), Shape(25, 10, np.ones((20, 20), bool))
    pixels = np.full((70, 2), 15.0)
    pixels[:4] = [[-1, 15], [40, 15], [28, 15], [5, 5]]  # outside, behind the other one, where both are, in the open
    trust, share = trusted(pixels, own, [other], 50, 50)
    assert trust[:5].tolist() == [0, 0, 1, 1, 1] and share == pytest.approx(18 / 21)


def test_a_network_that_cannot_be_compiled_is_told_once_and_runs_as_it_is(tmp_path, monkeypatch):
    """Fails where nobody hears of it, or hears of it with every batch, or where what is compiled is asked for in vain."""
    def broken(graph, inputs):
        raise RuntimeError("no compiler here")

    torch._dynamo.reset()
    people, model = {1: "vvvv", 2: "vvvv"}, network()
    whole, quiet, _ = recovered(tmp_path / "whole.take", people, stage(model, compiled=False))
    compile_parts = model.compile_parts
    monkeypatch.setattr(model, "compile_parts", lambda: compile_parts(broken))
    take, events, _ = recovered(tmp_path / "a.take", people, stage(model, compiled=True))
    told, before = ([event.message for event in heard if isinstance(event, Notice) and event.code == "not_compiled"] for heard in (events, quiet))
    assert len(told) == 1 and "no compiler here" in told[0] and not before
    for person in people:
        assert_close(arrays(whole, person), arrays(take, person))
    whole.close(), take.close()


def test_the_setting_reaches_the_stage():
    """And changes no key: a take that was begun without goes on with it."""
    plain, compiled = (next(stage for stage in Full().stages({"compile": wanted}) if stage.name == "recover") for wanted in (False, True))
    assert (plain._compiled, compiled._compiled) == (False, True) and plain.settings == compiled.settings
