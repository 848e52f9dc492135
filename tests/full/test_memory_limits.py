# SPDX-License-Identifier: Apache-2.0
"""Limits that really hold, what networks of full size take (counted, without their weights), and devices that lack something."""

import json
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from body4d_engine import memory  # noqa: E402
from body4d_engine.backends import Full  # noqa: E402
from body4d_engine.errors import Body4DError  # noqa: E402
from body4d_engine.models.mhr import stand_in  # noqa: E402
from body4d_engine.models.sam_3d_body.config import CONFIGS  # noqa: E402
from body4d_engine.people import Person  # noqa: E402
from body4d_engine.settings import checked  # noqa: E402
from body4d_engine.stages.full import costs  # noqa: E402
from body4d_engine.take import Take  # noqa: E402

from .masked import Pictures, masked_take, states  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))
import counting  # noqa: E402

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits a process as Linux does")
PEOPLE = {1: "vvvvvv", 2: "vvvvvv"}


# -- what is counted ------------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def body():
    """Of the published size, but for the mesh, which takes little."""
    return counting.body(replace(CONFIGS["dinov3"], vertices=200, faces=80))


@pytest.mark.parametrize("half, hands", list(costs.CROP))
def test_a_crop_takes_what_is_planned_for_it(body, half, hands):
    """Fails where the network comes to hold more than is planned, or far less."""
    network = body.backbone_to(torch.bfloat16 if half else torch.float32)
    one, four = (counting.alive(partial(network.infer, counting.crops(count, 64, 48), "full" if hands else "body")) for count in (1, 4))
    assert 0.95 * costs.CROP[half, hands] < four / 4 <= costs.CROP[half, hands] and one < 1.05 * four / 4


def test_people_who_are_followed_take_what_is_planned_for_them():
    sam3 = counting.sam3()
    one, four, eight = (counting.alive(counting.following(sam3, people)) for people in (1, 4, 8))
    assert 0.95 * costs.FOLLOWED < (four - one) / 3 <= costs.FOLLOWED and eight <= costs.FOLLOWING + 8 * costs.FOLLOWED
    assert 0.95 * costs.FOLLOWING < four - 4 * (four - one) / 3 <= costs.FOLLOWING


def test_a_picture_takes_what_is_planned_for_it():
    assert 0.6 * costs.MOGE_PICTURE < counting.alive(counting.measuring(1920, 1080)) <= costs.MOGE_PICTURE
    assert counting.alive(counting.seeing(counting.sam3())) <= costs.SAM3_PICTURE


def test_networks_take_what_is_planned_for_them():
    def size(network):
        return sum(4 * parameter.numel() for parameter in network.parameters())

    net = counting.sam3()
    text = size(net.detector_model.text_encoder)
    assert 0.98 * costs.SAM3 < size(net) <= costs.SAM3 and size(net) - text <= costs.SAM3_WITHOUT_TEXT
    assert 0.98 * costs.MOGE < size(counting.moge()) <= costs.MOGE


# -- limits ---------------------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device, hands", [("cpu", True), ("cpu", False), ("cuda", True), ("mps", True)])
def test_a_limit_below_the_least_is_told_before_anything_is_computed(device, hands, monkeypatch):
    monkeypatch.setattr(memory, "best_device", lambda: device)
    least = max(costs.least(device, hands).values())
    assert 3 * 10**9 < least < 6 * 10**9
    with pytest.raises(Body4DError) as error:
        Full().stages(checked({"memory_limit": least - 10**8, "hands": hands}))
    enough = round(1e9 * float(error.value.hint.split(" to ")[1].split()[0]))
    assert error.value.code == "memory_limit" and least <= enough <= least + 10**8
    assert Full().stages(checked({"memory_limit": enough, "hands": hands}))


@pytest.mark.parametrize("limit, crops, people", [(8, 13, 8), (12, 30, 8), (16, 48, 8)])
def test_what_is_taken_at_once_on_a_processor(limit, crops, people, monkeypatch):
    """With the networks loaded, of full size and in full precision, at 1080p: the plan leaves a tenth, and no more."""
    monkeypatch.setattr(memory, "free_bytes", lambda device: 10**12)
    for cost, network, expected in ((costs.recovering(1920, 1080, False, True), costs.BODY[False], crops),
                                    (costs.tracking(1920, 1080), costs.SAM3_WITHOUT_TEXT, people)):
        monkeypatch.setattr(memory, "used_bytes", lambda device, network=network: costs.PROGRAM + network)
        batch = memory.planned(cost, "cpu", limit * 10**9)
        assert batch == expected
        assert costs.PROGRAM + network + cost.fixed + batch * cost.item <= limit * 10**9


@LINUX
@pytest.mark.parametrize("name, column", [("RLIMIT_AS", 0), ("RLIMIT_DATA", 5)])
def test_limits_of_the_process_count(name, column, monkeypatch):
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[column]) * resource.getpagesize()
    limits = {getattr(resource, name): (now + 10**9, -1)}
    monkeypatch.setattr(resource, "getrlimit", lambda kind: limits.get(kind, (resource.RLIM_INFINITY,) * 2))
    assert 0.9 * 10**9 < memory.free_bytes("cpu") <= 1.01 * 10**9


RUN = """
import json, sys
sys.path.insert(0, {root!r})
from tests.full.test_memory_limits import recover
print(json.dumps(recover({path!r}, {spare!r}, {after!r})))
"""


def clip():
    return Pictures(6, size=(640, 360))


def recover(path, spare: int | None = None, after: int = 0) -> dict:
    """`recover` with a small network on large crops; with `spare` under a real limit of so many bytes more than the process has after so many commits.
    Returns the size of the batches at the end, or the error."""
    from body4d_engine.events import Committed
    from body4d_engine.memory import Batches
    from body4d_engine.pipeline import _run_stage
    from body4d_engine.stages.full.recover import Recover

    torch.set_num_threads(1)
    made, begin, key = [], Batches.__init__, {"recover": "r" * 16}
    net = large_crops()
    net.infer(counting.real_crops(1, 640, 360), "full")
    stage, commits = Recover(networks=lambda: net, batch=2 if after else 12, chunk=1), 0
    people = [Person(number) for number in PEOPLE]
    with Take.open(path, writable=True) as take, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Batches, "__init__", lambda self, size, what: (begin(self, size, what), made.append((what, self)))[0])
        try:
            if spare and not after:
                limit(spare)
            for event in _run_stage(stage, clip(), people, take, key, key):
                commits += isinstance(event, Committed)
                if spare and after and commits == after:
                    limit(spare)
        except Body4DError as error:
            return {"code": error.code}
    return {"batch": next(batches.size for what, batches in made if what == "one person in one frame")}


def limit(spare: int) -> None:
    import resource

    now = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_DATA, (now + spare,) * 2)


def large_crops():
    """Some thirty megabytes a crop."""
    from .sam_3d_body_nets import TINY, network

    return network(replace(TINY, backbone=replace(TINY.backbone, dim=64, hidden=2048, layers=1), image_size=384))


def under(path, spare: int, after: int = 0) -> dict:
    """`recover` in a process of its own."""
    code = RUN.format(root=str(Path(__file__).parents[2]), path=str(path), spare=spare, after=after)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def prepared(path):
    take, _ = masked_take(path, clip(), {person: states(text) for person, text in PEOPLE.items()})
    take.close()
    return path


def recovered(path) -> dict:
    with Take.open(path) as take:
        return {(person, name): np.array(take.by_sample(f"people/{person}", name, "recover")[:]) for person in PEOPLE
                for name in ("vertices", "root", "params", "confidence")}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = prepared(tmp_path_factory.mktemp("whole") / "a.take")
    assert recover(path) == {"batch": 12}
    return recovered(path)


def assert_same(one: dict, other: dict) -> None:
    for name in one:
        assert len(one[name]) == 6
        np.testing.assert_allclose(one[name], other[name], rtol=0, atol=1e-4, err_msg=str(name))


@LINUX
def test_under_a_real_limit_the_batch_shrinks_and_the_result_is_the_same(tmp_path, whole):
    """torch's own allocator fails, in the middle of the network."""
    told = under(prepared(tmp_path / "a.take"), 400 << 20)
    assert 1 < told["batch"] < 12, told
    assert_same(whole, recovered(tmp_path / "a.take"))


@LINUX
def test_a_limit_too_small_for_one_is_told_and_what_is_done_stays(tmp_path, whole):
    path = prepared(tmp_path / "a.take")
    assert under(path, 1 << 20, after=4) == {"code": "out_of_memory"}
    with Take.open(path, writable=True) as take:
        assert 0 < take.count("people/1", "root", "recover") < 6
    recover(path)
    assert_same(whole, recovered(path))


RELEASED = """
import torch
from pathlib import Path
from body4d_engine.memory import release
def private():
    return next(int(line.split()[1]) for line in Path("/proc/self/smaps_rollup").read_text().splitlines() if line.startswith("Private_Dirty")) >> 10
torch.ones(7 << 20)  # from now on the C library keeps what is smaller, where it can
begin = private()
held = [torch.ones(1 << 20) for _ in range(100)]  # of 4 MB, as most of a network's
kept = held[-1]
full, held = private(), None
release()
print(full - begin, private() - begin)
"""


@LINUX
def test_what_was_freed_is_given_back():
    """Fails where the C library keeps a network for itself: one of 3.4 GB left all of it in the process."""
    done = subprocess.run([sys.executable, "-c", RELEASED], capture_output=True, text=True, check=True)
    full, after = map(int, done.stdout.split())
    assert full >= 390 and after < 40, done.stdout


# -- devices --------------------------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stage", ["camera", "track", "recover"])
def test_who_has_no_fast_gpu_is_told_by_every_stage(stage):
    told = {device: costs.slow(stage, device) for device in ("cpu", "mps", "cuda")}
    assert told["cuda"] is None and told["cpu"].code == "no_gpu" and told["mps"].code == "slow_gpu"
    assert all(told[device].stage == stage and "seconds" in told[device].message for device in ("cpu", "mps"))


@pytest.mark.parametrize("platform, expected", [("darwin", "1"), ("linux", "None")])
def test_what_metal_lacks_is_computed_on_the_processor(platform, expected):
    """torch reads the variable when it is loaded, so the package sets it before."""
    code = f"import sys, os; sys.platform = {platform!r}; import body4d_engine; print(os.environ.get('PYTORCH_ENABLE_MPS_FALLBACK'), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected, "False"]


def test_nothing_on_the_device_has_64_bits(monkeypatch):
    """Apple's GPUs have no float64: whatever a stage computes on its device is counted, and none may be. (Here the device is the processor: `cut` is told
    that it is not, where it looks.)"""
    from body4d_engine.models.moge.model import MoGe
    from body4d_engine.models.sam3.tracker import Tracker
    from body4d_engine.models.sam_3d_body import crops
    from body4d_engine.models.sam_3d_body.figure import Figure

    from .sam3_nets import lively, pictures
    from .sam_3d_body_nets import network, people

    monkeypatch.setattr(crops, "precise", lambda device: torch.float32)
    net, sam3, moge, frames = network(), lively(1), MoGe.build("tiny"), pictures(3)
    tracker, figure = Tracker(sam3), Figure(net)
    tracker.start(160, 90)
    tracker.prompt(0, 1, [(30, 40, True)])
    tracker.prompt(0, 3, box=(60, 25, 100, 75))
    with counting.Wide() as wide:
        for mode in ("body", "full"):
            net.infer(people(), mode)
        for frame, picture in enumerate(frames):
            tracker.step(frame, picture)
        sam3.detect(frames[0])
        moge.focal(frames[0][None])
        params, shape = np.tile(figure.average, (3, 1)), np.zeros((3, 45), np.float32)
        figure.posed(params, shape)
        figure.keypoints(params, shape)
        stand_in.parameters(2)
    assert not wide.found, wide.found
