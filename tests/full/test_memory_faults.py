# SPDX-License-Identifier: Apache-2.0
"""A GPU that is lost in the middle of each stage, and memory that runs out there: what a user is told, what the take keeps, and that it goes on to the same."""

import os
from copy import copy
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("cv2")
pytest.importorskip("av")

from body4d_engine.clip import open_clip  # noqa: E402
from body4d_engine.errors import Body4DError, is_device_lost, is_out_of_memory  # noqa: E402
from body4d_engine.events import StageFinished, StageStarted  # noqa: E402
from body4d_engine.memory import Batches  # noqa: E402
from body4d_engine.pipeline import run  # noqa: E402
from body4d_engine.settings import checked  # noqa: E402
from body4d_engine.take import Take  # noqa: E402

from .fake_sam3 import Actor, FakeSam3, FakeTracker, World  # noqa: E402
from .sam_3d_body_nets import network  # noqa: E402
from .test_full_pipeline import Tiny  # noqa: E402

FRAMES, STAGES = 12, ("camera", "track", "recover", "refine")
LOST = ("CUDA error: unspecified launch failure\nSearch for `cudaErrorLaunchFailure'", "CUDA error: CUDA-capable device(s) is/are busy or unavailable",
        "CUDA error: device-side assert triggered", "CUDA error: uncorrectable ECC error encountered", "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
        "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`")
SHORT = ("CUDA out of memory. Tried to allocate 2.00 GiB.", "CUDA error: out of memory", "MPS backend out of memory (MPS allocated: 8.00 GB)",
         "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`", "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
         "[enforce fail at alloc_cpu.cpp:127] data. DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes.", "std::bad_alloc",
         "GET was unable to find an engine to execute this computation")


class Failing(Tiny):
    """The full backend with small networks, committing often, one of whose stages fails: at its `at`-th call, or the first with more than one thing. meshes:
    whether those of `refine` are the things, else it is their keypoints."""

    def __init__(self, net, stage: str = "", error: Exception | None = None, at: int | None = None, meshes: bool = False):
        super().__init__(net)
        self.stage, self.error, self.at, self.meshes = stage, error, at, meshes

    def stages(self, settings):
        focal = self._failing("camera", lambda pictures: (np.full(len(pictures), 210.0), None), len)
        camera = SimpleNamespace(device="cuda", focal=focal)
        tracker, recover = FakeTracker(), copy(self._net)
        tracker.step = self._failing("track", tracker.step, lambda sample, seen, reverse, people: len(people))
        recover.infer = self._failing("recover", recover.infer, lambda crops, mode: len(crops))
        refine = SimpleNamespace(mhr=copy(self._net.mhr), body=self._net.body)
        refine.mhr.posed = self._failing("refine", refine.mhr.posed, lambda shape, params, *more: len(params) * (self.meshes != bool(more)))
        made = {"camera": camera, "track": (FakeSam3(), tracker, "cpu"), "recover": recover, "refine": refine}
        stages = super().stages(settings)
        for stage in stages:
            if stage.name in made:
                stage._networks = lambda name=stage.name: made[name]
                stage.chunk, stage._commit_every, stage._batch = 3, 2, 5
        return stages

    def _failing(self, stage: str, work, size):
        calls = 0

        def failing(*given, **named):
            nonlocal calls
            calls += 1
            if stage == self.stage and self.error and (calls == self.at if self.at else size(*given, **named) > 1):
                error, self.error = self.error, None
                raise error
            return work(*given, **named)

        return failing


@pytest.fixture(scope="module", autouse=True)
def quick():
    """A program that ends loses nothing that was written; only a power failure would."""
    threads, patch = torch.get_num_threads(), pytest.MonkeyPatch()
    torch.set_num_threads(1)
    patch.setattr(os, "fsync", lambda file: None)
    yield
    patch.undo()
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    world = World([Actor(lambda frame: (60 + 2 * frame, 20)), Actor(lambda frame: (150 - 2 * frame, 30))], FRAMES, size=(240, 120))
    with open_clip(world.write(tmp_path_factory.mktemp("clip") / "frames")) as clip:
        yield clip


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(scope="module")
def whole(tmp_path_factory, clip, net):
    path = tmp_path_factory.mktemp("whole") / "a.take"
    list(run(clip, path, Failing(net), [], checked({"hands": False})))
    return contents(path)


def contents(path) -> dict:
    with Take.open(path) as take:
        assert len(take.people) == 2
        return {(person, name): np.array(take.by_sample(f"people/{person}", name)[:]) for person in (1, 2)
                for name in ("state", "vertices", "root", "rotations", "params", "confidence")} | {"focal": take.camera()["focal_px"]}


def assert_same(one: dict, other: dict) -> None:
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-4, err_msg=str(name))


@pytest.mark.parametrize("stage, at", [("camera", 4), ("track", 9), ("recover", 4), ("refine", 6)])
def test_a_gpu_that_is_lost_is_told_and_gone_on_from(tmp_path, clip, net, whole, stage, at):
    path, settings = tmp_path / "a.take", checked({"hands": False})
    backend = Failing(net, stage, torch.AcceleratorError(LOST[0]), at)
    with pytest.raises(Body4DError) as error:
        list(run(clip, path, backend, [], settings))
    assert error.value.code == "gpu_lost" and stage in error.value.message and "unspecified launch failure" in error.value.message
    assert "\n" not in error.value.message and "goes on" in error.value.hint
    events = list(run(clip, path, Failing(net), [], settings))
    skipped = [event.stage for event in events if isinstance(event, StageFinished) and event.skipped]
    begun = [event for event in events if isinstance(event, StageStarted)]
    assert skipped == ["prepare", *STAGES[: STAGES.index(stage)]] and begun[0].stage == stage and begun[0].resumed
    assert_same(whole, contents(path))


@pytest.mark.parametrize("stage, meshes", [("track", False), ("recover", False), ("refine", False), ("refine", True)])
def test_out_of_memory_halves_and_goes_on_to_the_same(tmp_path, clip, net, whole, stage, meshes):
    backend = Failing(net, stage, torch.OutOfMemoryError(SHORT[0]), meshes=meshes)
    list(run(clip, tmp_path / "a.take", backend, [], checked({"hands": False})))
    assert backend.error is None
    assert_same(whole, contents(tmp_path / "a.take"))


@pytest.mark.parametrize("stage", STAGES)
def test_without_memory_for_one_it_is_told_and_gone_on_from(tmp_path, clip, net, whole, stage, monkeypatch):
    monkeypatch.setattr(Batches, "__init__", lambda self, size, what: vars(self).update(size=1, _what=what))
    path, at = tmp_path / "a.take", {"camera": 4, "track": 9, "recover": 16, "refine": 30}[stage]
    backend = Failing(net, stage, torch.OutOfMemoryError(SHORT[0]), at)
    with pytest.raises(Body4DError) as error:
        list(run(clip, path, backend, [], checked({"hands": False})))
    assert error.value.code == "out_of_memory"
    events = list(run(clip, path, Failing(net), [], checked({"hands": False})))
    assert next(event for event in events if isinstance(event, StageStarted)).resumed
    assert_same(whole, contents(path))


def test_which_errors_are_which():
    """In torch's words, as its versions raise them: OutOfMemoryError, AcceleratorError, RuntimeError."""
    for kind in (RuntimeError, torch.AcceleratorError):
        assert all(is_device_lost(kind(text)) and not is_out_of_memory(kind(text)) for text in LOST)
        assert all(is_out_of_memory(kind(text)) and not is_device_lost(kind(text)) for text in SHORT)
    assert not is_device_lost(RuntimeError("The size of tensor a (3) must match the size of tensor b (4)")) and not is_device_lost(ValueError(LOST[0]))


def test_memory_is_given_back_by_a_device_that_has_failed(monkeypatch):
    """Or rather it is not, and that error does not take the place of the one that matters."""
    from body4d_engine.memory import release

    def fails():
        raise torch.AcceleratorError(LOST[0])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "empty_cache", fails)
    release()
