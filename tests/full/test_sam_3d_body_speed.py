# SPDX-License-Identifier: Apache-2.0
"""What makes SAM 3D Body fast on a GPU, as far as a CPU can tell: nothing waits for the device, parts compile into whole graphs, batches keep their shape."""

import contextlib

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from torch.overrides import TorchFunctionMode  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402
from torch.utils._pytree import tree_leaves  # noqa: E402

from body4d_engine.models.sam_3d_body.crops import CropInput, pack  # noqa: E402
from body4d_engine.models.sam_3d_body.figure import Figure  # noqa: E402
from body4d_engine.models.sam_3d_body.stream import Stream  # noqa: E402
from body4d_engine.models.sam_3d_body.transfers import Download, Transfers  # noqa: E402

from .sam_3d_body_nets import camera, frame, network, people  # noqa: E402

FORBIDDEN = ("item", "tolist", "numpy", "cpu", "nonzero", "nonzero_static", "masked_select", "unique", "__bool__", "__int__", "__float__", "__index__",
             "new_tensor", "tensor", "as_tensor", "from_numpy", "equal", "allclose", "is_nonzero", "repeat_interleave", "bincount")


class Watch(TorchFunctionMode):
    """Refuses what would have a device's queue run empty: asking for a number, a shape that depends on numbers, and copies from this program's memory."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        name = getattr(function, "__name__", "")
        if name == "repeat_interleave" and not isinstance(args[1], torch.Tensor):
            return function(*args, **(kwargs or {}))
        assert name not in FORBIDDEN, f"{name} waits for the device"
        if name in ("__getitem__", "__setitem__"):
            assert not any(isinstance(index, (list, np.ndarray)) for index in (args[1] if isinstance(args[1], tuple) else (args[1],))), "an index goes up"
        out = function(*args, **(kwargs or {}))
        if name in ("to", "type_as", "copy_", "cuda") and isinstance(out, torch.Tensor):
            assert args[0].device == out.device, f"{name} copies between devices"
        return out


class Beneath(TorchDispatchMode):
    """Refuses operators on tensors of this program and of a device."""

    def __torch_dispatch__(self, operator, types, args=(), kwargs=None):
        out = operator(*args, **(kwargs or {}))
        tensors = [value for value in tree_leaves((args, kwargs, out)) if isinstance(value, torch.Tensor) and value.dim()]
        assert len({value.device for value in tensors}) <= 1, f"{operator} copies between devices"
        return out


@contextlib.contextmanager
def watching():
    with Watch(), Beneath():
        yield


def on_meta(monkeypatch):
    """A network of tensors without values, its tables for MHR made before. Autocast knows no such device."""
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda device: False)
    monkeypatch.setattr(torch, "autocast", lambda device, enabled: contextlib.nullcontext())
    model = network()
    heads = (model.body.pose_head, model.hand.pose_head)
    tables = []
    for head in (None, *heads):
        model.mhr.hold(None if head is None else head.keypoint_vertices)
        part = model.mhr._parts[-1][1]
        values = [value if value.layout == torch.strided else value.to_dense() for value in vars(part).values()]  # nothing sparse multiplies there
        tables.append((head, type(part)(*(value.to("meta") for value in values))))
    model.to("meta")
    model.mhr._parts = [(None if head is None else head.keypoint_vertices, part) for head, part in tables]
    return model


@pytest.mark.parametrize("mode", ["body", "full"])
def test_nothing_waits_for_the_device(mode, monkeypatch):
    """From the upload of a frame to the download of records, on tensors without values: a number that has to be known is an error by itself, copies from and to
    this program's memory are refused. Fails for .item(), a mask as index, a branch on a tensor, a constant made in the loop, a download nobody asked for."""
    model = on_meta(monkeypatch)
    shapes = []

    def down(self, tensors):
        shapes.append(tuple(tensors["vertices"].shape))
        return Download({name: torch.zeros(value.shape) for name, value in tensors.items()}, None)

    infer = Stream._infer

    def watched(self, crops):
        with watching():
            return infer(self, crops)

    monkeypatch.setattr(Transfers, "down", down)
    monkeypatch.setattr(Stream, "_infer", watched)
    stream, items, rows = Stream(model, Figure(model), mode, 2), people(), 0
    for index, item in enumerate(items):
        rows += sum(len(labels) for labels, _ in stream.feed([item], [index]))
    rows += sum(len(labels) for labels, _ in stream.rest())
    assert rows == 5 and shapes == [(2, 200, 3), (2, 200, 3), (1, 200, 3)]


def test_the_watch_sees():
    """What it must refuse, it does."""
    meta, here = torch.zeros(3, device="meta"), torch.zeros(3)
    for wait in (lambda: meta.new_tensor([1.0]), lambda: torch.tensor([1.0], device="meta"), lambda: here.to("meta"), lambda: meta.copy_(here),
                 lambda: here.sum().item(), lambda: bool(here.sum() > 0), lambda: meta[[2, 0]]):
        with pytest.raises(AssertionError), watching():
            wait()
    for wait in (lambda: meta[meta > 0], lambda: bool(meta.sum() > 0)):
        with pytest.raises((RuntimeError, NotImplementedError, AssertionError)), watching():
            wait()


def test_results_are_read_when_the_next_batch_is_queued(monkeypatch):
    """Fails where the device stands still while this program reads: the second batch must be queued, and the first one's copies begun, before it waits."""
    model, done = network(), []
    infer, down, arrays = model.infer, Transfers.down, Download.arrays
    monkeypatch.setattr(model, "infer", lambda *given: done.append("infer") or infer(*given))
    monkeypatch.setattr(Transfers, "down", lambda *given: done.append("down") or down(*given))
    monkeypatch.setattr(Download, "arrays", lambda self: done.append("read") or arrays(self))
    stream = Stream(model, Figure(model), "body", 1)
    for index in range(3):
        list(stream.feed(people()[:1], [index]))
    list(stream.rest())
    assert done == ["infer", "down", "infer", "down", "read", "infer", "down", "read", "read"]


def test_a_frame_goes_up_once(monkeypatch):
    """Three copies for a frame with five people: the frame, their masks, their numbers."""
    sent = []
    up = Transfers.up
    monkeypatch.setattr(Transfers, "up", lambda self, tensors: sent.append([tuple(tensor.shape) for tensor in tensors]) or up(self, tensors))
    image = frame()
    pack([CropInput(image, np.array([20, 10, 70 + more, 110]), camera(), np.ones((120, 160), bool)) for more in range(5)], "cpu")
    pack([CropInput(image, np.array([20, 10, 70, 110]), camera())], "cpu")
    assert sent == [[(1, 120, 160, 3), (5, 18), (5, 120, 160, 1)], [(1, 120, 160, 3), (1, 18)]]


class Queue:
    """Stands in for a CUDA stream, and notes what happens to it."""

    def __init__(self, name: str, said: list):
        self.name, self.said = name, said

    def wait_stream(self, other):
        self.said.append(f"{self.name} waits for {other.name}")


def run(stream: Stream, transfers: Transfers) -> dict[int, dict]:
    """Everyone's record."""
    stream._transfers = transfers
    batches = [batch for index, item in enumerate(people()) for batch in stream.feed([item], [index])] + list(stream.rest())
    return {label: {name: values[row] for name, values in found.items()} for labels, found in batches for row, label in enumerate(labels)}


def test_the_way_of_cuda(monkeypatch):
    """The branch that CUDA takes, with stand-ins for streams and events. Fails where uploads are not on their own stream, where computing does not wait for
    them, where their memory is not kept while it is used, or where a copy makes this program wait before it reads."""
    said, flags = [], []
    lane, computing = Queue("lane", said), Queue("computing", said)
    transfers = Transfers("cpu")
    transfers._lane = lane
    to, copy = torch.Tensor.to, torch.Tensor.copy_

    class Event:
        def record(self, queue):
            said.append(f"event on {queue.name}")

        def synchronize(self):
            said.append("wait")

    @contextlib.contextmanager
    def on(queue):
        said.append(f"on {queue.name}")
        yield
        said.append("off")

    monkeypatch.setattr(torch.cuda, "stream", on)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: computing)
    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, queue: said.append(f"kept for {queue.name}"))
    with monkeypatch.context() as spied:
        spied.setattr(torch.Tensor, "to", lambda tensor, *args, **options: flags.append(options["non_blocking"]) or to(tensor, *args, **options))
        spied.setattr(torch.Tensor, "copy_", lambda tensor, other, non_blocking=False: flags.append(non_blocking) or copy(tensor, other, non_blocking))
        moved = transfers.up([torch.ones(2), torch.ones(3)])
        coming = transfers.down({"a": moved[0] + 1})
    assert said == ["on lane", "off", "computing waits for lane", "kept for computing", "kept for computing", "event on computing"]
    assert flags == [True] * 3 and coming.arrays()["a"].tolist() == [2, 2] and said[-1] == "wait"
    model = network()
    found = [run(Stream(model, Figure(model), "body", 2), way) for way in (transfers, Transfers("cpu"))]
    assert all(np.array_equal(values, found[1][label][name]) for label, row in found[0].items() for name, values in row.items()) and len(found[0]) == 5


def in_batches(model, crops, mode: str, size: int) -> dict:
    parts = list(model.infer_in_batches(crops, mode, size))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


@pytest.mark.slow
def test_parts_compile_into_whole_graphs():
    """Encoder and decoders as one graph each for each of their shapes, with the same result, and once: the second run, whose last batch is not full, makes no
    new one. Fails for anything that torch cannot trace, for a batch of another size, and for a result that a later batch overwrites."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    model, crops = network(), pack(people(), "cpu")
    plain, counter = in_batches(model, crops, "full", 3), CompileCounterWithBackend("aot_eager")
    model.compile_parts(counter)
    found = in_batches(model, crops, "full", 3)
    assert model.compiled, model.not_compiled
    assert counter.frame_count == 5  # the encoder for bodies and for hands, the body's decoder twice, with other prompts, the hands'
    in_batches(model, crops, "full", 3)
    assert counter.frame_count == 5
    for name, value in found.items():
        assert torch.allclose(value.float(), plain[name].float(), atol=1e-5, rtol=1e-6), name


def test_what_cannot_be_compiled_is_told_and_done_without():
    """Fails where the result is lost, where it is tried again for every batch, or where nobody hears of it."""
    torch._dynamo.reset()
    tries = []

    def broken(graph, inputs):
        tries.append(1)
        raise RuntimeError("no compiler here\nmore")

    model, crops = network(), pack(people(), "cpu")
    plain = model.infer(crops, "body")
    model.compile_parts(broken)
    found = model.infer(crops, "body")
    assert not model.compiled and "no compiler here" in model.not_compiled and "\n" not in model.not_compiled
    again = model.infer(crops, "body")
    assert len(tries) == 1 and all(torch.equal(plain[name], value) and torch.equal(again[name], value) for name, value in found.items())


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), torch.AcceleratorError("CUDA error: unspecified launch failure")])
def test_other_faults_of_compiled_parts_are_not_swallowed(error, monkeypatch):
    """Too little memory halves the batch and a lost device is told: neither is a reason to go on without compiling."""
    model = network().compile_parts("eager")

    def fails(*_):
        raise error

    monkeypatch.setattr(model, "_infer", fails)
    with pytest.raises(type(error)):
        model.infer(people(), "body")
    assert model.compiled


def test_company_changes_no_bit_in_half_precision():
    """A crop in the same place of a batch of the same size, whoever else is there: the same bits, hands and records included. Fails where a last batch is not
    filled up, or where anything is normalised over a batch. In a batch of another size it moves by less than a millimetre."""
    model = network().backbone_to(torch.bfloat16)
    items = people()

    def rows(order, size):
        stream = Stream(model, Figure(model), "full", size)
        batches = [batch for index in order for batch in stream.feed([items[index]], [index])] + list(stream.rest())
        return {label: {name: values[row] for name, values in found.items()} for labels, found in batches for row, label in enumerate(labels)}

    first, second = rows([0, 1, 2, 3, 4], 4), rows([4, 1, 3, 2, 0], 4)
    for label in (0, 1, 4):  # 1 keeps its place; 0 and 4 change theirs, which is the first of a whole batch and of one that is filled up
        for name, value in first[label].items():
            np.testing.assert_array_equal(value, second[label][name], err_msg=f"{label}, {name}")
    small = rows([0, 1, 2, 3, 4], 2)
    assert max(np.abs(first[label]["vertices"] - small[label]["vertices"]).max() for label in first) < 1e-3
    assert np.abs(first[0]["vertices"] - first[2]["vertices"]).max() > 1e-2
