# SPDX-License-Identifier: Apache-2.0
"""From a clip to a take and its exports through the stages of the full backend: a made-up SAM 3 and focal length, and a tiny random SAM 3D Body and MHR."""

import json
import shutil
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("av")

from body4d_engine.backends import BACKENDS, Full, get_backend  # noqa: E402
from body4d_engine.clip import open_clip  # noqa: E402
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.events import Committed, StageFinished  # noqa: E402
from body4d_engine.exports import export  # noqa: E402
from body4d_engine.metrics import evaluate  # noqa: E402
from body4d_engine.people import Correction, Person  # noqa: E402
from body4d_engine.pipeline import run  # noqa: E402
from body4d_engine.report import summarise  # noqa: E402
from body4d_engine.settings import checked  # noqa: E402
from body4d_engine.take import State, Take  # noqa: E402
from body4d_engine.models.mhr import stand_in  # noqa: E402
from body4d_engine.models.sam_3d_body import keys  # noqa: E402
from body4d_engine.models.sam_3d_body.figure import Figure  # noqa: E402
from body4d_engine.models.sam_3d_body.inference import Sam3dBody  # noqa: E402
from body4d_engine.stages.full.recover import network_of  # noqa: E402
from body4d_engine.stages.full.refine import _body_of  # noqa: E402

from .fake_sam3 import Actor, FakeSam3, FakeTracker, World  # noqa: E402
from .sam_3d_body_nets import network  # noqa: E402

FRAMES = 12


class Tiny(Full):
    """The full backend with small networks."""

    def __init__(self, net):
        self._net = net

    def lacks(self, weights=None, models="ours"):
        return []

    def stages(self, settings):
        stages = super().stages(settings)
        for stage in stages:
            if stage.name == "track":
                stage._networks = lambda: (FakeSam3(), FakeTracker(), "cpu")
            elif stage.name == "camera":
                stage._networks = lambda: SimpleNamespace(device="cpu", focal=lambda pictures: (np.full(len(pictures), 210.0), None))
            elif hasattr(stage, "_networks"):
                stage._networks = lambda: self._net
        return stages


@pytest.fixture(scope="module")
def backend():
    return Tiny(network())


def two_people() -> World:
    """The second comes late and is hidden behind the first for two frames."""
    return World([Actor(lambda frame: (60 + 2 * frame, 20)), Actor(lambda frame: None if frame < 3 or frame in (7, 8) else (160 - 2 * frame, 30))], FRAMES,
                 size=(200, 120))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    with open_clip(two_people().write(tmp_path_factory.mktemp("clip") / "frames")) as clip:
        yield clip


@pytest.fixture(scope="module")
def made(tmp_path_factory, backend, clip):
    path = tmp_path_factory.mktemp("full") / "a.take"
    return path, list(run(clip, path, backend, [], checked({"hands": False})))


def test_a_clip_becomes_a_take(made, clip):
    path, events = made
    assert [event.stage for event in events if isinstance(event, StageFinished)] == [stage.name for stage in Full().stages({})]
    with Take.open(path) as take:
        assert take.backend == "full" and len(take.people) == 2
        assert take.camera()["focal_px"].tolist() == [210.0] * FRAMES and str(take.camera()["method"]) == "estimated"
        for person in (1, 2):
            assert take.result_stage(person) is not None
            root, state = (take.by_sample(f"people/{person}", name) for name in ("root", "state"))
            assert root.shape == (FRAMES, 3) and np.isfinite(np.asarray(root)).all() and (np.asarray(state) == State.VISIBLE).sum() >= 7
            body = take.body(person)
            assert take.by_sample(f"people/{person}", "vertices").shape == (FRAMES, *body["rest_vertices_m"].shape)
            assert take.by_sample(f"people/{person}", "params").shape == (FRAMES, 204)
        assert len(summarise(take)["people"]) == 2


def test_it_is_shown_while_it_is_made(made):
    events = [event for event in made[1] if isinstance(event, Committed) and event.stage == "recover"]
    assert {event.person for event in events} == {1, 2}


def test_nothing_is_done_twice(made, backend, clip):
    again = list(run(clip, made[0], backend, [], checked({"hands": False, "weights": "elsewhere", "memory_limit": 10**10})))
    assert all(event.skipped for event in again if isinstance(event, StageFinished))


def test_hands_are_a_setting_of_recover(made, backend, clip, tmp_path):
    """Fails where `hands` does not reach the network, or tracks people anew."""
    stages = {stage.name: stage for stage in Full().stages(checked({"hands": False}))}
    assert stages["recover"].settings["hands"] is False and Full().stages({})[3].settings["hands"] is True
    keys = [{stage.name: stage.settings for stage in Full().stages(checked({"hands": hands}))} for hands in (True, False)]
    assert [name for name in keys[0] if keys[0][name] != keys[1][name]] == ["recover"]


@pytest.mark.parametrize("layout", ["sam-body4d", "overlay", "report"])
def test_the_take_is_exported(made, clip, tmp_path, layout):
    out = tmp_path / ("out.mp4" if layout == "overlay" else "out.html" if layout == "report" else "out")
    with Take.open(made[0]) as take:
        list(export(take, layout, out, clip_path=clip.path))
    if layout == "sam-body4d":
        assert len(list((out / "mesh_4d_individual" / "1").glob("*.ply"))) == FRAMES
        focal = json.loads(next((out / "focal_4d_individual" / "1").glob("*.json")).read_text())
        assert focal["focal_length"] == 210.0
    else:
        assert out.stat().st_size > 1000


def test_it_can_be_evaluated(made):
    with Take.open(made[0]) as take:
        assert evaluate(take)


def test_a_run_that_dies_goes_on(made, backend, clip, tmp_path):
    path = tmp_path / "b.take"
    running = run(clip, path, backend, [], checked({"hands": False}))
    for event in running:
        if isinstance(event, Committed) and event.stage == "recover":
            running.close()
    list(run(clip, path, backend, [], checked({"hands": False})))
    with Take.open(made[0]) as whole, Take.open(path) as take:
        for person in (1, 2):
            for name in ("vertices", "root", "rotations", "state"):
                np.testing.assert_allclose(*(np.asarray(one.by_sample(f"people/{person}", name)) for one in (whole, take)), rtol=0, atol=1e-4)


@pytest.mark.parametrize("settings, said", [({"smoothing": 2.0}, {}), ({"foot_lock": False}, {}), ({"heights": {0: 1.5}}, {}), ({}, {"height_m": 1.6}),
                                            ({}, {"corrections": [Correction(5, 6, "sides")]})])
def test_what_is_said_afterwards_runs_refine_alone(made, backend, clip, tmp_path, settings, said):
    """In place: no network looks at a picture again, and the take changes."""
    path = tmp_path / "a.take"
    shutil.copytree(made[0], path)
    with Take.open(path) as take:
        before = np.array(take.by_sample("people/1", "vertices")), take.body(1)["rest_vertices_m"]
    events = list(run(clip, path, backend, [Person(1, **said)], checked({"hands": False, **settings})))
    assert [event.stage for event in events if isinstance(event, StageFinished) and not event.skipped] == ["refine"]
    with Take.open(path) as take:
        changed = np.abs(np.array(take.by_sample("people/1", "vertices")) - before[0]).max() > 1e-5
        assert changed or "foot_lock" in settings  # this random body never stands
        tall = settings.get("heights", {}).get(0) or said.get("height_m")
        height = np.ptp(take.body(1)["rest_vertices_m"][:, 1])
        assert height == pytest.approx(tall or np.ptp(before[1][:, 1]), abs=1e-3)


def test_the_network_comes_from_the_weights_folder(monkeypatch, tmp_path):
    """The layout of SAM-Body4D's README: what is loaded computes what was saved, and `refine` needs no more of it than the body."""
    net, folder, published = network(), tmp_path / "sam-3d-body-dinov3", Sam3dBody.load
    (folder / "assets").mkdir(parents=True)
    torch.save({"state_dict": keys.to_published(net.state_dict(), net.config)}, folder / "model.ckpt")
    stand_in.save_torchscript(folder / "assets" / "mhr_model.pt", net.config.vertices)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("APPDATA", str(tmp_path / "config"))
    monkeypatch.setattr(Sam3dBody, "load", lambda folder, mhr, **more: published(folder, mhr, (net.config,), **more))
    for of in (network_of, _body_of):
        loaded = of("dinov3", tmp_path)
        params, shape = Figure(net).average[None], np.ones((1, 45), np.float32)
        np.testing.assert_allclose(Figure(loaded).posed(params, shape)["vertices"], Figure(net).posed(params, shape)["vertices"], atol=1e-5)
    with pytest.raises(Body4DError) as error:
        network_of("vith", tmp_path)
    assert error.value.code == "weights_missing"


def test_what_is_missing_is_told_in_words(monkeypatch, tmp_path):
    monkeypatch.setenv("BODY4D_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    lacks = Full().lacks()
    assert any("SAM 3D Body" in text and "mhr_model.pt" in text for text in lacks) and any("MoGe-2" in text for text in lacks)
    with pytest.raises(Body4DError) as error:
        get_backend("full")
    assert error.value.code == "backend_incomplete" and "body4d setup full" in error.value.hint
    assert isinstance(BACKENDS["full"], Full)
