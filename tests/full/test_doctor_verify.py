# SPDX-License-Identifier: Apache-2.0
"""`body4d doctor --verify` accepts the body that the samples came from and no other. The published body is stood in for by a random one."""

import json
import os

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("safetensors")

from body4d_engine import examining, proving  # noqa: E402
from body4d_engine.cli import main  # noqa: E402
from body4d_engine.models.mhr import keys, stand_in  # noqa: E402
from body4d_engine.models.mhr.stand_in_program import Program  # noqa: E402
from body4d_engine.weights import CATALOGUE, Located  # noqa: E402

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
    monkeypatch.setattr(proving, "settings_folder", lambda: tmp_path / "settings")


def check(rig, samples, folder):
    file = folder / "samples.npz"
    np.savez(file, **samples)
    return proving.mhr([Located(CATALOGUE["sam-3d-body-dinov3"], {proving.RIG: rig})], file)


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
    with np.load(proving.SAMPLES) as data:
        people = {key: data[key] for key in data}
    assert people["shape"].shape == (2, keys.IDENTITY) and people["model_params"].shape == (2, keys.PARAMETERS) and people["expression"].shape == (2, 72)
    assert people["indices"].max() < keys.VERTICES and people["vertices_m"].shape == (2, len(people["indices"]), 3)
    heights = np.ptp(people["vertices_m"][..., 1], axis=1)
    assert (heights > 0.9).all() and (heights < 2.3).all()  # metres, of people who may sit


def test_without_weights_it_says_where_they_come_from(monkeypatch, tmp_path, capsys):
    for name, value in {"HF_HUB_CACHE": tmp_path, "BODY4D_WEIGHTS": tmp_path}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(examining, "torch", lambda machine: examining.Check("torch", "ok", "not asked here: it takes seconds"))
    main(["doctor", "--json", "--verify"])
    last = json.loads(capsys.readouterr().out)["checks"][-1]
    assert last["state"] == "missing" and "body4d setup full" in last["next"]
