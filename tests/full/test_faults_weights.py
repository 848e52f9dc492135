# SPDX-License-Identifier: Apache-2.0
"""Weights that are half there, another model's, or damaged: what the command says, and that no take comes of them."""

import shutil

import cv2
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("av")

from body4d_engine.cli import main  # noqa: E402
from body4d_engine.take import Take  # noqa: E402

from . import tiny_weights  # noqa: E402
from .sam3_nets import pictures  # noqa: E402
from .tiny_weights import BODY, FILES, MOGE2, RIG, SAM3  # noqa: E402

pytestmark = pytest.mark.slow
CLICKS = ["--click", "1:0,30,40"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    torch.set_num_threads(1)
    return tiny_weights.write(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clip")
    for number, picture in enumerate(pictures(2)):
        cv2.imwrite(str(folder / f"{number:04d}.png"), picture[..., ::-1])
    return folder


@pytest.fixture
def weights(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "weights")


def run(clip, path, capsys, *options) -> tuple[int, str]:
    """Exit status, and all that the user reads."""
    status = main(["run", str(clip), "--out", str(path), "--backend", "full", *CLICKS, *options])
    said = capsys.readouterr()
    return status, said.out + said.err


def result(path) -> bool:
    if not Take.exists(path):
        return False
    with Take.open(path) as take:
        return any(take.result_stage(person["id"]) for person in take.people)


def test_whole_weights_work_and_no_gpu_is_said(clip, weights, tmp_path, capsys, monkeypatch):
    tiny_weights.use(monkeypatch, weights, tmp_path)
    status, said = run(clip, tmp_path / "a.take", capsys)
    assert status == 0 and "There is no GPU here" in said and "refine: done" in said and result(tmp_path / "a.take")
    with Take.open(tmp_path / "a.take") as take:
        assert "no_gpu" in {notice["code"] for notice in take.notices()}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("fault", ["missing", "half", "half, of a size that is not known"])
def test_half_a_checkpoint(clip, weights, tmp_path, capsys, monkeypatch, name, fault):
    """Told before anything is done, where sizes are known; when it is read, where the hub has another version."""
    tiny_weights.use(monkeypatch, weights, tmp_path, sizes=fault == "half")
    file = weights / name
    if fault == "missing":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    status, said = run(clip, tmp_path / "a.take", capsys)
    assert status == 1 and file.name in said and "Traceback" not in said
    assert "body4d setup full" in said or name == RIG and "download it again" in said
    assert {"missing": "lacks the weights of", "half": "is cut short"}.get(fault, "cannot be read") in said
    assert not result(tmp_path / "a.take") and Take.exists(tmp_path / "a.take") == fault.startswith("half,")


@pytest.mark.parametrize("name, other", [(SAM3, BODY), (MOGE2, SAM3), (BODY, MOGE2), (RIG, BODY)])
def test_a_checkpoint_of_another_model(clip, weights, whole, tmp_path, capsys, monkeypatch, name, other):
    """A file under another's name, of whatever size."""
    shutil.copy(whole / other, weights / name)
    tiny_weights.use(monkeypatch, weights, tmp_path)
    status, said = run(clip, tmp_path / "a.take", capsys)
    assert status == 1 and str((weights / name).parent) in said and "Traceback" not in said and not result(tmp_path / "a.take")


def changed(file, under, change):
    content = torch.load(file, weights_only=True)
    change(content[under])
    torch.save(content, file)


UNDER = {SAM3: "model", MOGE2: "model", BODY: "state_dict"}
KEYS = {SAM3: ("tracker.no_obj_ptr", "no_object_pointer"),  # in the file, and as it is named here
        MOGE2: ("points_head.output_blocks.4.bias",) * 2, BODY: ("decoder.layers.1.ln3.weight",) * 2}


@pytest.mark.parametrize("name", UNDER)
@pytest.mark.parametrize("fault", ["missing key", "extra key"])
def test_keys(clip, weights, tmp_path, capsys, monkeypatch, name, fault):
    """Nothing is left as random numbers, nothing that might matter is passed over: file and key are named."""
    key, word = KEYS[name]
    if fault == "missing key":
        changed(weights / name, UNDER[name], lambda tensors: tensors.pop(key))
    else:
        word = {SAM3: "tracker.unheard_of", MOGE2: "neck.unheard_of", BODY: "decoder.layers.7.ln3.weight"}[name]
        changed(weights / name, UNDER[name], lambda tensors: tensors.update({word: torch.zeros(3)}))
    tiny_weights.use(monkeypatch, weights, tmp_path)
    status, said = run(clip, tmp_path / "a.take", capsys)
    assert status == 1 and str((weights / name).parent) in said and word.removeprefix("tracker.") in said
    assert "Traceback" not in said and not result(tmp_path / "a.take")


@pytest.mark.parametrize("name", FILES)
def test_bytes_that_are_wrong(clip, weights, tmp_path, capsys, monkeypatch, name):
    """The file's table of contents is damaged: what a disk or a transfer does."""
    file = weights / name
    content = bytearray(file.read_bytes())
    content[-200:-100] = bytes(100)
    file.write_bytes(content)
    tiny_weights.use(monkeypatch, weights, tmp_path)
    status, said = run(clip, tmp_path / "a.take", capsys)
    assert status == 1 and str(file) in said and "cannot be read" in said and "Traceback" not in said and not result(tmp_path / "a.take")


def test_numbers_that_are_none(clip, weights, tmp_path, capsys, monkeypatch):
    """A file of the right form with damaged numbers, or a network whose numbers run over: nothing of it reaches a take, and it is said where it came out."""
    changed(weights / BODY, "state_dict", lambda tensors: tensors["head_pose.proj.layers.1.weight"].fill_(torch.nan))
    tiny_weights.use(monkeypatch, weights, tmp_path)
    status, said = run(clip, tmp_path / "a.take", capsys)
    assert status == 1 and "The body of person 1 at frame 0 came out without numbers" in said and "Traceback" not in said
    with Take.open(tmp_path / "a.take") as take:
        assert take.stage("recover") is None and take.count("people/1", "root", "recover") == 0
