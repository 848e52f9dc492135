# SPDX-License-Identifier: Apache-2.0
"""`body4d doctor --verify` accepts the body that the samples came from and no other. The published body is stood in for by a random one."""

import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from body4d_engine import examining  # noqa: E402
from body4d_engine.backends import BACKENDS  # noqa: E402
from body4d_engine.cli import main  # noqa: E402
from body4d_engine.models.mhr import keys, stand_in  # noqa: E402
from body4d_engine.models.mhr.stand_in_program import Program  # noqa: E402
from body4d_engine.clip import open_clip  # noqa: E402
from body4d_engine.proving import clip, people  # noqa: E402
from body4d_engine.proving.judging import read_truth  # noqa: E402
from body4d_engine.weights import CATALOGUE, Located  # noqa: E402

from . import fake_sam3, tiny_weights  # noqa: E402
from .fake_sam3 import FakeSam3, FakeSeen, FakeTracker  # noqa: E402

VERTICES = 300


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    """An mhr_model.pt in the published form."""
    torch.set_num_threads(1)
    file = tmp_path_factory.mktemp("rig") / "mhr_model.pt"
    stand_in.save_torchscript(file, VERTICES)
    return file


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Two people as SAM 3D Body returns them, by the program itself: metres, y and z turned to the camera's."""
    shape, params, expression = stand_in.parameters(2)
    with torch.no_grad():
        centimetres, _ = Program(stand_in.archive(VERTICES)).eval()(shape, params, expression)
    indices = np.arange(0, VERTICES, 7, dtype=np.int32)
    return {"shape": shape.numpy(), "model_params": params.numpy(), "expression": expression.numpy(), "indices": indices,
            "vertices_m": (centimetres.numpy() * [0.01, -0.01, -0.01]).astype(np.float32)[:, indices]}


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    monkeypatch.setattr(people, "settings_folder", lambda: tmp_path / "settings")


def check(rig, samples, folder):
    file = folder / "samples.npz"
    np.savez(file, **samples)
    return people.mhr([Located(CATALOGUE["sam-3d-body-dinov3"], {people.RIG: rig})], file)


def test_the_right_body_is_accepted(rig, samples, tmp_path):
    found = check(rig, samples, tmp_path)
    assert found.state == "ok" and str(rig) in found.found


@pytest.mark.parametrize("name", ["shape", "model_params", "expression", "vertices_m", "another body"])
def test_any_other_is_not(rig, samples, tmp_path, name):
    """Fails where an input, a sign or the body itself is not looked at."""
    if name == "another body":
        rig = tmp_path / "mhr_model.pt"
        stand_in.save_torchscript(rig, VERTICES, seed=1)
    else:
        changed = samples[name] * np.array([1, -1, 1], np.float32) if name == "vertices_m" else samples[name] * np.float32(1.01)
        samples = {**samples, name: changed}
    found = check(rig, samples, tmp_path)
    assert found.state == "wrong" and found.next


def test_a_broken_file_is_told(rig, samples, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(rig.read_bytes())
    os.truncate(broken, 5000)
    found = check(broken, samples, tmp_path)
    assert found.state == "wrong" and str(broken) in found.found and found.next


def test_the_shipped_samples_fit_the_published_body():
    with np.load(people.SAMPLES) as data:
        known = {key: data[key] for key in data}
    assert known["shape"].shape == (2, keys.IDENTITY) and known["model_params"].shape == (2, keys.PARAMETERS) and known["expression"].shape == (2, 72)
    assert known["indices"].max() < keys.VERTICES and known["vertices_m"].shape == (2, len(known["indices"]), 3)
    heights = np.ptp(known["vertices_m"][..., 1], axis=1)
    assert (heights > 0.9).all() and (heights < 2.3).all()  # metres, of people who may sit


def test_without_weights_it_says_where_they_come_from(monkeypatch, tmp_path, capsys):
    for name, value in {"HF_HUB_CACHE": tmp_path, "BODY4D_WEIGHTS": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(examining, "torch", lambda machine: examining.Check("torch", "ok", "not asked here: it takes seconds"))
    assert main(["doctor", "--json", "--verify"]) == 1  # nothing is proven
    result = json.loads(capsys.readouterr().out)
    *_, body, whole = result["checks"]
    assert result["proven"] is False
    for check in (body, whole):
        assert check["state"] == "missing" and "body4d setup full" in check["next"]
    assert whole["name"] == clip.NAME and "the weights of SAM 3 (sam3.pt)" in whole["found"]


def test_random_weights_go_through_everything_and_are_refused(monkeypatch, tmp_path, capsys):
    """The path of the command with real networks, tiny and random: it ends in words, what they found is judged, and nothing of it passes."""
    tiny_weights.use(monkeypatch, tiny_weights.write(tmp_path / "weights"), tmp_path)
    monkeypatch.setattr(examining, "torch", lambda machine: examining.Check("torch", "ok", "not asked here: it takes seconds"))
    assert main(["doctor", "--json", "--verify"]) == 1
    said = capsys.readouterr()
    checks = {check["name"]: check for check in json.loads(said.out)["checks"]}
    assert "Traceback" not in said.err and checks["MHR rebuilds the sample people"]["state"] == "wrong"
    proofs = {name: check for name, check in checks.items() if name.startswith("clip: ")}
    assert {clip.NAME, clip.BY_CLICK} <= set(proofs)
    for name, check in proofs.items():
        assert check["state"] in ("ok", "wrong") and check["found"] and bool(check["next"]) == (check["state"] == "wrong"), name
    assert proofs[clip.BY_CLICK]["state"] == "wrong"


class Knowing(FakeSam3):
    """Sees in each picture of the clip where the person truly is."""

    def __init__(self):
        super().__init__()
        boxes = read_truth(clip.TRUTH).boxes
        with open_clip(clip.CLIP) as frames:
            self.where = {frames.read(number).tobytes(): box for number, box in enumerate(boxes)}
            self.size = frames.height, frames.width

    def see(self, rgb):
        x0, y0, x1, y1 = self.where[rgb.tobytes()]
        y, x = np.mgrid[: self.size[0], : self.size[1]] + 0.5
        return FakeSeen(10 * ((2 * x - x0 - x1) ** 2 / (x1 - x0) ** 2 + (2 * y - y0 - y1) ** 2 / (y1 - y0) ** 2 < 1).astype(np.uint8))


def test_right_masks_do_not_save_wrong_bodies(monkeypatch, tmp_path):
    """All six checks of bodies are made of a random network's, and refuse it."""
    tiny_weights.use(monkeypatch, tiny_weights.write(tmp_path / "weights"), tmp_path)
    full = type(BACKENDS["full"])

    class Tracked(full):
        def stages(self, settings):
            stages = super().stages(settings)
            track = next(stage for stage in stages if stage.name == "track")
            track._networks = lambda: (Knowing(), FakeTracker(), "cpu")
            return stages

    monkeypatch.setattr(fake_sam3, "HALO", fake_sam3.OUTSIDE)
    checks = {check.name: check for check in clip.pipeline(Tracked())}
    assert checks[clip.NAME].state == "ok" and all(f"{stage} " in checks[clip.NAME].found for stage in ("prepare", "camera", "track", "recover", "refine"))
    assert checks[clip.BY_WORD].state == checks[clip.BY_CLICK].state == "ok"
    assert len(checks) == 9
    for name in ("reprojection", "left and right, front and back", "upright, feet at the bottom", "pose in space", "size"):
        assert checks[f"clip: {name}"].state == "wrong" and checks[f"clip: {name}"].next, name
