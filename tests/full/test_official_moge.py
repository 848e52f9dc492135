# SPDX-License-Identifier: Apache-2.0
"""The published MoGe-2 behind our interface: a stand-in that follows its signature, and the real one where it is installed."""

import importlib.machinery
import sys
import types
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models import official  # noqa: E402
from body4d_engine.models.official.moge import MoGe  # noqa: E402
from body4d_engine.stages.full import camera  # noqa: E402

from .test_full_camera import Numbered, run  # noqa: E402


class MoGeModel(torch.nn.Module):
    """Says a focal length of `focal` heights; the pixels brighter than a tenth have a depth."""

    def __init__(self, focal: float = 1.5):
        super().__init__()
        self.weight, self.told, self.seen = torch.nn.Parameter(torch.zeros(1)), focal, []

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, model_kwargs=None, **hf_kwargs):
        print("loading")
        model = cls()
        model.file = Path(pretrained_model_name_or_path)
        return model

    def infer(self, image, num_tokens=None, resolution_level=9, force_projection=True, apply_mask=True, fov_x=None, use_fp16=True):
        assert image.shape[0] == 3 and image.dtype == torch.float32 and 0 <= image.min() and image.max() <= 1 and not use_fp16 and not self.training
        self.seen.append(image)
        height, width = image.shape[1:]
        intrinsics = torch.tensor([[self.told * height / width, 0, 0.5], [0, self.told, 0.5], [0, 0, 1]])
        return {"mask": image.amax(0) > 0.1, "intrinsics": intrinsics, "points": torch.zeros(height, width, 3)}


@pytest.fixture
def package(monkeypatch):
    def put(**content):
        for name in ("moge", "moge.model", "moge.model.v2"):
            module = types.ModuleType(name)
            module.__spec__, module.__path__ = importlib.machinery.ModuleSpec(name, None), []
            monkeypatch.setitem(sys.modules, name, module)
        vars(sys.modules["moge.model.v2"]).update(content)
    return put


def test_focal_lengths_and_shares(package, capsys, tmp_path):
    """Fails for the width in place of the height, pictures that are not RGB from 0 to 1, or a focal length of a picture without any depth."""
    package(MoGeModel=MoGeModel)
    network = MoGe.load(tmp_path)
    assert network.network.file == tmp_path / "model.pt" and MoGe.load(tmp_path / "a.pt").network.file == tmp_path / "a.pt"
    pictures = np.zeros((3, 60, 100, 3), np.uint8)
    pictures[0, ..., 0], pictures[1, :30, ..., 0] = 255, 128
    focal, share = network.focal(pictures)
    assert focal[:2].tolist() == [90, 90] and np.isnan(focal[2]) and share[:2].tolist() == [1, 0.5] and focal.dtype == np.float64
    assert network.network.seen[0][0].min() == 1 and network.network.seen[0][1:].max() == 0 and capsys.readouterr().out == ""
    assert not np.shares_memory(pictures, network.network.seen[0].numpy())


def test_the_camera_stage_asks_it(package, monkeypatch, tmp_path):
    package(MoGeModel=MoGeModel)
    (tmp_path / "moge-2-vitl-normal").mkdir()
    (tmp_path / "moge-2-vitl-normal" / "model.pt").write_text("")
    stage = camera.Camera(folder=tmp_path, models="official")
    found, _ = run(Numbered([], frames=80, size=(640, 360)), tmp_path, stage)
    assert found["focal_px"].tolist() == [540.0] * 80 and stage.settings["models"] == "official"


def test_a_package_that_is_not_as_it_should_be(package, monkeypatch, tmp_path):
    if not official.PACKAGES["moge"].here:
        with pytest.raises(Body4DError) as error:
            MoGe.load(tmp_path)
        assert error.value.code == "official_missing" and "microsoft/MoGe" in error.value.hint
    package()
    with pytest.raises(Body4DError, match="no MoGeModel in moge.model.v2") as error:
        MoGe.load(tmp_path)
    assert error.value.code == "official_version"
    monkeypatch.delitem(sys.modules, "moge.model.v2")     # the first MoGe alone
    with pytest.raises(Body4DError) as error:
        MoGe.load(tmp_path)
    assert error.value.code == "official_version"
    package(MoGeModel=types.SimpleNamespace(from_pretrained=lambda path: 1 / 0))
    with pytest.raises(Body4DError, match="ZeroDivisionError") as error:
        MoGe.load(tmp_path)
    assert error.value.code == "official_failed" and error.value.hint


def test_the_real_one_says_the_same(monkeypatch):
    """The published code itself, where it can be imported, on small random weights."""
    checkout = Path(pytest.importorskip("moge.model.v2").__file__).parents[2]
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    from compare import focal

    report = focal.compare(checkout)
    assert not report["faults"] and len(report["pictures"]) == 6
