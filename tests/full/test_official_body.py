# SPDX-License-Identifier: Apache-2.0
"""The published SAM 3D Body behind our interface: a stand-in that follows its signature and has its faults, and the real one where it is installed."""

import importlib.machinery
import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from body4d_engine import cli  # noqa: E402
from body4d_engine.backends import Full, get_backend  # noqa: E402
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models import official  # noqa: E402
from body4d_engine.models.official.sam_3d_body import Sam3dBody, Stream  # noqa: E402
from body4d_engine.models.sam_3d_body.crops import CropInput  # noqa: E402
from body4d_engine.models.sam_3d_body.figure import Figure  # noqa: E402
from body4d_engine.pipeline import stage_keys  # noqa: E402
from body4d_engine.settings import checked  # noqa: E402
from body4d_engine.stages.full.recover import Recover, official_of  # noqa: E402

from ..engine.tracked import run_stage  # noqa: E402
from . import masked  # noqa: E402
from .sam_3d_body_nets import camera, frame, network, people  # noqa: E402
from .test_full_recover import arrays, assert_close  # noqa: E402

SCRIPTS = Path(__file__).parents[2] / "scripts"


class Estimator:
    """Answers as the published estimator does, by our network: one frame at a time, noisily, and wrong where it is wrong. calls: people of each call."""

    def __init__(self, net):
        self.net, self.calls = net, []

    def process_one_image(self, img, bboxes=None, masks=None, cam_int=None, det_cat_id=0, bbox_thr=0.5, nms_thr=0.3, use_mask=False, inference_type="full"):
        print("####### Please make sure the input image is in RGB format")
        assert img.dtype == np.uint8 and img.shape[2] == 3 and img.flags.c_contiguous and bboxes.dtype == np.float32 and bboxes.shape[1:] == (4,)
        assert isinstance(cam_int, torch.Tensor) and cam_int.shape == (1, 3, 3) and cam_int.dtype == torch.float32
        assert masks is None or masks.shape == (len(bboxes), *img.shape[:2]) and masks.dtype == np.uint8 and masks.max() <= 1
        self.calls.append(len(bboxes))
        crops = [CropInput(img, box, cam_int[0].numpy(), None if masks is None else masks[row]) for row, box in enumerate(bboxes)]
        found = {name: value.numpy() for name, value in self.net.infer(crops, inference_type).items() if name != "hands_used"}
        if inference_type == "full":                      # as published: projected by the picture's middle, rotations of before, an emptied pose
            found["pred_keypoints_2d"] = found["pred_keypoints_2d"] + 7
            found["pred_global_rots"] = np.zeros_like(found["pred_global_rots"])
            found["pred_pose_raw"] = np.zeros((len(crops), 266), np.float32)
        return [{name: value[row] for name, value in found.items()} | {"mask": masks} for row in range(len(crops))]


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture
def estimator(net):
    return Estimator(net)


@pytest.fixture
def theirs(net, estimator):
    return Sam3dBody(estimator, net)


@pytest.fixture
def package(monkeypatch):
    """Puts a package of the published name there, with what is given in it."""
    def put(name="sam_3d_body", **content):
        module = types.ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
        return module
    return put


def code_of(call) -> Body4DError:
    with pytest.raises(Body4DError) as error:
        call()
    assert error.value.hint
    return error.value


@pytest.mark.parametrize("mode", ["body", "full"])
def test_it_answers_as_ours(net, theirs, estimator, mode, capsys):
    """Crops of two frames in turns, with masks and without. Fails where rows go to another crop, a camera is another frame's, masks are 0 and 255, or the
    published 2D keypoints and rotations of `full` come through."""
    crops = people()
    ours, found = net.infer(crops, mode), theirs.infer(crops, mode)
    assert set(ours) - {"hands_used"} == set(found) and sum(estimator.calls) == len(crops) and len(estimator.calls) == 3  # two frames; of one, with and without
    for name, value in found.items():
        np.testing.assert_allclose(value, ours[name], rtol=0, atol=5e-3 if name == "pred_keypoints_2d" else 1e-4, err_msg=name)
    assert capsys.readouterr().out == ""


def test_a_take_is_that_of_ours(tmp_path, net, theirs, estimator):
    """Fails where the stream mixes labels, the record lacks an array, or a frame's people are not given together."""
    text = {1: masked.states("vvvvov"), 3: masked.states("-vvovv")}
    takes = []
    for models, networks in (("ours", net), ("official", theirs)):
        clip = masked.Pictures(6)
        take, persons = masked.masked_take(tmp_path / f"{models}.take", clip, text)
        events = run_stage(Recover(hands=False, networks=lambda networks=networks: networks, models=models, batch=4), take, persons, clip)
        takes.append((take, [type(event).__name__ for event in events if type(event).__name__ == "Notice"]))
    for person in text:
        assert_close(arrays(takes[0][0], person), arrays(takes[1][0], person))
    assert estimator.calls == [1, 2, 2, 1, 1, 2] and takes[0][1] == takes[1][1]
    for take, _ in takes:
        take.close()


def test_people_of_a_frame_that_do_not_fit_are_taken_in_parts(net, theirs, estimator):
    ask = estimator.process_one_image

    def narrow(img, bboxes=None, **given):
        if len(bboxes) > 1:
            raise MemoryError
        return ask(img, bboxes, **given)

    estimator.process_one_image = narrow
    crops = [crop for crop in people() if crop.mask is not None][:2]
    crops[1].image, crops[1].K = crops[0].image, crops[0].K
    figure = Figure(net)
    (labels, found), = Stream(theirs, figure, "body").feed(crops, ["a", "b"])
    assert labels == ["a", "b"] and len(found["vertices"]) == 2 and estimator.calls == [1, 1]
    np.testing.assert_allclose(found["translation"], net.infer(crops, "body")["pred_cam_t"], atol=1e-4)


def test_what_the_published_code_raises_is_told(net, theirs, estimator):
    estimator.process_one_image = lambda *_, **__: 1 / 0
    error = code_of(lambda: theirs.infer(people()))
    assert error.code == "official_failed" and "ZeroDivisionError" in error.message and "--models official" in error.hint
    estimator.process_one_image = lambda img, bboxes=None, **_: [{"bbox": box} for box in bboxes]
    assert "pred_vertices" in code_of(lambda: theirs.infer(people())).message
    estimator.process_one_image = lambda *_, **__: []
    assert code_of(lambda: theirs.infer(people())).code == "official_version"
    assert code_of(lambda: theirs.infer([CropInput(frame(), np.array([5, 5, 5, 9]), camera())])).code == "empty_crop"
    with pytest.raises(Body4DError, match="not a way"):
        theirs.infer(people(), "hand")


def test_a_package_that_is_not_as_it_should_be(net, package, monkeypatch, tmp_path):
    """Each way to be missing or wrong, in words, with the next step."""
    load = lambda device="cuda": Sam3dBody.load(tmp_path / "model.ckpt", tmp_path / "mhr_model.pt", net, device)  # noqa: E731
    monkeypatch.setitem(sys.modules, "sam_3d_body", None)
    monkeypatch.delitem(sys.modules, "sam_3d_body")
    if not official.PACKAGES["sam_3d_body"].here:
        error = code_of(load)
        assert error.code == "official_missing" and "github.com/facebookresearch/sam-3d-body" in error.hint
    package(SAM3DBodyEstimator=Estimator)
    error = code_of(load)
    assert error.code == "official_version" and "load_sam_3d_body" in error.message
    folder = tmp_path / "path" / "sam_3d_body"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text("import a_package_that_nobody_has")
    monkeypatch.delitem(sys.modules, "sam_3d_body")
    monkeypatch.syspath_prepend(str(folder.parent))
    error = code_of(load)
    assert error.code == "official_broken" and "a_package_that_nobody_has" in error.message
    package(SAM3DBodyEstimator=Estimator, load_sam_3d_body=lambda **_: None)
    for device in ("cpu", "mps"):
        error = code_of(lambda device=device: load(device))
        assert error.code == "needs_cuda" and "NVIDIA" in error.message
    assert code_of(load).code == "weights_missing"
    (tmp_path / "model_config.yaml").write_text("")
    assert code_of(load).code == "official_failed"        # this loader takes no argument by place


def test_it_loads_what_the_weights_folder_has(net, package, monkeypatch, tmp_path):
    """Fails where another checkpoint or body is given, or the device is not."""
    asked = []

    def load_sam_3d_body(checkpoint_path="", device="cuda", mhr_path=""):
        print("Loading SAM 3D Body model...")
        asked.append((checkpoint_path, device, mhr_path))
        return net, "options"

    package(SAM3DBodyEstimator=lambda model, cfg: Estimator(model) if cfg == "options" else None, load_sam_3d_body=load_sam_3d_body)
    folder = tmp_path / "sam-3d-body-vith"
    (folder / "assets").mkdir(parents=True)
    for name in ("model.ckpt", "assets/mhr_model.pt", "model_config.yaml"):
        (folder / name).write_text("")
    from body4d_engine import memory
    from body4d_engine.stages.full import recover
    monkeypatch.setattr(recover, "body_of", lambda body, folder, device: net if device == "cuda:7" else None)
    monkeypatch.setattr(memory, "computing_device", lambda limit: "cuda:7")
    found = official_of("vith", tmp_path)
    assert asked == [(str(folder / "model.ckpt"), "cuda:7", str(folder / "assets" / "mhr_model.pt"))] and found.mhr is net.mhr


def test_takes_of_the_two_are_never_mixed():
    """Every stage that asks a network has another key, and so has what comes after it."""
    clip = masked.Pictures(3)
    ours, theirs = (stage_keys(Full().stages(checked({"models": models})), clip, [], "full") for models in official.MODELS)
    assert [name for name in ours if ours[name] != theirs[name]] == ["camera", "track", "recover", "refine"]
    assert checked()["models"] == "ours" == cli.parser().parse_args(["run", "a", "-o", "b"]).models
    assert cli.parser().parse_args(["run", "a", "-o", "b", "--models", "official"]).models == "official"
    assert code_of(lambda: checked({"models": "theirs"})).code == "bad_settings"


def test_the_backend_says_what_it_lacks(monkeypatch, tmp_path):
    for name in ("BODY4D_WEIGHTS", "HF_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setattr(official, "find_spec", lambda name: None if name in official.PACKAGES else importlib.util.find_spec(name))
    error = code_of(lambda: get_backend("full", models="official"))
    assert all(word in error.message for word in ("package sam3", "package moge", "package sam_3d_body")) and "git clone" in error.hint
    assert "model_config.yaml" in error.message and "setup full" in error.hint and "moge" not in " ".join(Full().lacks())
    monkeypatch.setattr(official, "PACKAGES", {})
    assert ("NVIDIA" in " ".join(official.lacks())) != torch.cuda.is_available()
    assert "--backend full" in code_of(lambda: get_backend("lite", models="official")).hint


@pytest.mark.parametrize("hands", [False, True])
def test_the_real_one_gives_the_same_take(tmp_path, monkeypatch, hands):
    """The published code itself, where it can be imported, on small random weights that its own loader reads, with its own crops."""
    checkout = Path(pytest.importorskip("sam_3d_body").__file__).parents[1]
    monkeypatch.syspath_prepend(str(SCRIPTS))
    from compare import networks, published

    model = networks.random_network("dinov3", networks.SEEDS["dinov3"])
    monkeypatch.setattr(masked, "CENTRE", (80.0, 60.0))   # elsewhere the published hands are wrong
    takes = []
    with published.on_cpu(checkout, model):
        published.save(model, tmp_path, networks.SEEDS["dinov3"])
        for models, net in (("ours", model), ("official", published.load(tmp_path, model))):
            clip = masked.Pictures(2)
            take, persons = masked.masked_take(tmp_path / f"{models}.take", clip, {1: masked.states("vv"), 3: masked.states("vv")})
            run_stage(Recover(hands=hands, networks=lambda net=net: net, models=models, batch=4), take, persons, clip)
            takes.append(take)
    for person in (1, 3):
        ours, theirs = (arrays(take, person) for take in takes)
        for name, tolerance in {"vertices": 2e-4, "joints": 2e-4, "keypoints_m": 1e-4, "root": 1e-4, "keypoints_px": 0.02, "params": 1e-3, "shape": 1e-3,
                                "rotations": 1e-3, "hands": 1e-3, "confidence": 1e-2}.items():
            np.testing.assert_allclose(ours[name], theirs[name], rtol=0, atol=tolerance, err_msg=name)
        assert np.ptp(ours["params"], axis=0).max() > 0.01 and (ours["state"] == theirs["state"]).all()
    for take in takes:
        take.close()
