# SPDX-License-Identifier: Apache-2.0
"""What the full backend's networks take while they compute, counted without their weights: on torch's meta device, where tensors have sizes and no numbers.

Counted are the storages that an operation makes and that somebody still holds, at their highest. Attention is one operation, as it is on CUDA and on CPUs;
what libraries take besides inside of operations is not in it."""

import weakref
from collections.abc import Callable
from contextlib import nullcontext
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from body4d_engine.models.mhr import body as mhr_body
from body4d_engine.models.mhr import stand_in
from body4d_engine.models.sam_3d_body import inference
from body4d_engine.models.sam_3d_body.config import KEYPOINTS, Config
from body4d_engine.models.sam_3d_body.crops import CropInput, Packed

MEMORIES, PROMPTED, POINTERS = 6, 4, 16  # that a full memory of one person has


class Alive(TorchDispatchMode):
    """most: the most bytes that were alive at once of what was made inside."""

    def __init__(self):
        super().__init__()
        self.now = self.most = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        given = {_storage(value)._cdata for value in _tensors((args, kwargs))}
        for value in _tensors(out):
            storage = _storage(value)
            if storage._cdata not in given | self._known:
                self._known.add(storage._cdata)
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return out

    def _gone(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


class Wide(TorchDispatchMode):
    """found: the operations inside that made something of 64-bit floating point, and its shape."""

    def __init__(self):
        super().__init__()
        self.found: list[tuple[str, tuple]] = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        out = operation(*args, **(kwargs or {}))
        self.found += [(str(operation), tuple(value.shape)) for value in _tensors(out) if value.dtype in (torch.float64, torch.complex128)]
        return out


class Attention(TorchFunctionMode):
    """Attention in one operation, without a matrix of all tokens by all tokens."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is torch.nn.functional.scaled_dot_product_attention:
            return args[0].new_empty(*args[0].shape[:-1], args[2].shape[-1])
        return function(*args, **(kwargs or {}))


def _tensors(tree) -> list[Tensor]:
    return [value for value in tree_leaves(tree) if isinstance(value, Tensor) and value.layout == torch.strided]


def _storage(value: Tensor):
    return value.untyped_storage()


def alive(work: Callable) -> int:
    """The most bytes that work() holds at once, beside what there was before."""
    with mock.patch.object(inference, "_exact", lambda device: nullcontext()), mock.patch.object(mhr_body, "_exact", lambda device: nullcontext()):
        with torch.inference_mode(), Attention(), Alive() as counted:
            work()
    return counted.most


def _empty(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


# -- SAM 3D Body ----------------------------------------------------------------------------------------------------------------------------------------------


def body(config: Config) -> "inference.Sam3dBody":
    """A network of that size on the meta device, with eight vertices for each keypoint."""
    from body4d_engine.models.checkpoints import without_weights

    with without_weights():
        network = inference.Sam3dBody(config, stand_in.mhr(config.vertices))
    for head in (network.body.pose_head, network.hand.pose_head):
        for row in head.keypoint_mapping[:KEYPOINTS]:
            row[torch.randint(config.vertices, (8,))] = 0.1
            row[config.vertices + torch.randint(127, (1,))] = 0.2
    network.hand.pose_head.not_hand = torch.cat([torch.arange(6, 101), torch.arange(128, 178)])
    network.prepare().eval()
    wanted = (None, network.body.pose_head.keypoint_vertices, network.hand.pose_head.keypoint_vertices)
    parts = [network.mhr._part(vertices) for vertices in wanted]
    network.to("meta")
    wanted = (None, network.body.pose_head.keypoint_vertices, network.hand.pose_head.keypoint_vertices)
    network.mhr._parts = [(vertices, mhr_body._Part(*(_empty(*table.shape) for table in (part.base, part.identity, part.expression, part.correctives,
                                                                                         part.weights)))) for vertices, part in zip(wanted, parts)]
    return network


def crops(count: int, width: int, height: int) -> Packed:
    """So many crops, each of a frame of its own, on the meta device."""
    return Packed(frames=_empty(count, height, width, 3, dtype=torch.uint8), frame_of=_empty(count, dtype=torch.int64), box=_empty(count, 4),
                  centre=_empty(count, 2), side=_empty(count), K=_empty(count, 3, 3), masks=_empty(count, height, width, 1, dtype=torch.uint8),
                  has_mask=_empty(count, dtype=torch.bool))


def real_crops(count: int, width: int, height: int) -> list[CropInput]:
    """Crops of noise."""
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    K = np.array([[width, 0, width / 2 - 0.5], [0, width, height / 2 - 0.5], [0, 0, 1]])
    mask = np.ones((height, width), bool)
    return [CropInput(picture, np.array([k, 0, k + width / 3, height]), K, mask) for k in range(count)]


# -- SAM 3 and MoGe-2 -----------------------------------------------------------------------------------------------------------------------------------------


def sam3():
    """transformers' SAM 3 at its published size, on the meta device."""
    from transformers import Sam3VideoModel

    from body4d_engine.models.sam3.config import CONFIGS, library_config

    with torch.device("meta"):
        return Sam3VideoModel(library_config(CONFIGS["full"])).eval().requires_grad_(False)


def seeing(net) -> Callable:
    """The backbone on one picture."""
    size = net.tracker_model.image_size
    return lambda: net.detector_model.vision_encoder.backbone(_empty(1, 3, size, size))


def following(net, people: int) -> Callable:
    """One frame of so many people whose memories are full."""
    from body4d_engine.models.sam3 import network

    tracker = net.tracker_model
    grid, width = tracker.prompt_encoder.image_embedding_size[0], net.tracker_neck.fpn_layers[0].proj1.out_channels
    view = network.View(_empty(grid * grid, 1, width), _empty(grid * grid, 1, width), _empty(1, width // 8, 4 * grid, 4 * grid),
                        _empty(1, width // 4, 2 * grid, 2 * grid))
    features = [_empty(people, grid * grid, tracker.mem_dim, dtype=torch.bfloat16) for _ in range(PROMPTED + MEMORIES)]
    steps = [[0] * PROMPTED + list(range(1, MEMORIES + 1))] * people

    def work() -> None:
        picture = network.with_memory(tracker, view, features, steps, _empty(people, POINTERS, width), [[1] * POINTERS] * people, POINTERS)
        found = network.segment(tracker, picture, view)
        network.encode_memory(tracker, view, network.at_picture_size(tracker, found.logits), found.score, prompted=False)

    return work


def moge():
    from body4d_engine.models.moge.model import MoGe

    with torch.device("meta"):
        return MoGe.build("vitl", torch.float32)


def measuring(width: int, height: int) -> Callable:
    """MoGe-2 on one picture."""
    net = moge()
    return lambda: net(_empty(1, height, width, 3, dtype=torch.uint8))
