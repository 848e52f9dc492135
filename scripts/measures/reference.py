# SPDX-License-Identifier: Apache-2.0
"""The published SAM 3D Body beside ours: the same random weights, the same crops, the same machine."""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import torch

from body4d_engine.models.official import sam_3d_body as official
from body4d_engine.models.official import silent
from body4d_engine.models.sam_3d_body.figure import Figure
from body4d_engine.models.sam_3d_body.inference import MODES, Sam3dBody

from .bodies import batch_of, body_network, counts, crops, pictures, streamed
from .device import launches, peak, seconds

SEED = 0


def reference(args) -> dict:
    """Seconds, operators and evaluations of MHR per person-frame, theirs and ours, with five people in a frame and with one. Their encoder is ours, in the
    precision that ours has: it is the same network, and theirs is fetched from the network of computers."""
    from compare import published

    network, shown, out = body_network(args.size, args.device, whole_mesh=True), pictures(), {}
    figure, batch = Figure(network), batch_of(args, network.backbone_dtype == torch.bfloat16)
    with tempfile.TemporaryDirectory() as folder, _importable(published, args, network):
        published.save(network.cpu(), Path(folder), SEED)
        network.to(args.device)
        with peak(args.device) as whole:
            theirs = _loaded(published, Path(folder), network, args.device)
            for mode in MODES:
                for people in (5, 1):
                    out[f"{mode}, {people} people"] = _beside(theirs, network, figure, mode, batch, shown, people, args)
    return out | {"peak_gib": whole["gib"]}


def _beside(theirs: official.Sam3dBody, network: Sam3dBody, figure: Figure, mode: str, batch: int, shown: list, people: int, args) -> dict:
    frames = [crops(shown, people, frame) for frame in range(max(1, args.frames // 12))]

    def run() -> None:
        for frame in frames:
            theirs.infer(frame, mode)

    theirs.infer(frames[0], mode)  # warm
    taken = seconds(run, args.device) / (len(frames) * people)
    evaluations, found = [], None
    with _counted(theirs, evaluations):
        found = launches(lambda: evaluations.clear() or theirs.infer(frames[0], mode), args.device)
    streamed(network, figure, mode, batch, shown, people, -(-batch // people))
    ours, count = streamed(network, figure, mode, batch, shown, people, -(-2 * batch // people))
    mine = counts(network, figure, mode, batch, shown)
    return {"person_frame_s": {"theirs": taken, "ours": ours / count, "times": taken / (ours / count)},
            "mhr_evaluations_per_person_frame": {"theirs": len(evaluations) / people, "ours": mine["mhr_evaluations_per_person_frame"]},
            **{f"{name}_per_person_frame": {"theirs": found[name] / people, "ours": mine[f"{name}_per_person_frame"]} for name in found},
            "mhr_evaluations_per_call": {"theirs": len(evaluations), "ours": mine["mhr_evaluations"]}}


@contextmanager
def _counted(theirs: official.Sam3dBody, evaluations: list) -> Iterator[None]:
    """Notes how many people each evaluation of MHR is for."""
    kind = type(theirs.estimator.model.head_pose)
    plain = kind.mhr_forward

    def counted(self, *args, **kwargs):
        evaluations.append(1)
        return plain(self, *args, **kwargs)

    kind.mhr_forward = counted
    try:
        yield
    finally:
        kind.mhr_forward = plain


@contextmanager
def _importable(published, args, network: Sam3dBody) -> Iterator[None]:
    """Inside, the checkout is the package that is imported; its encoder is ours."""
    with ExitStack() as stack:
        os.environ.setdefault("MOMENTUM_ENABLED", "0")  # any value at all makes the published head use the TorchScript file
        if args.device.startswith("cuda"):
            sys.path.insert(0, str(args.reference))
            stack.callback(sys.path.remove, str(args.reference))
            with silent():
                from sam_3d_body.models.meta_arch import sam3d_body as meta
        else:
            stack.enter_context(published.on_cpu(args.reference, network))
            from sam_3d_body.models.meta_arch import sam3d_body as meta
        stack.enter_context(published.replaced(meta, "create_backbone", lambda name, cfg: _Encoder(network)))
        yield


class _Encoder(torch.nn.Module):
    patch_size = 16

    def __init__(self, network: Sam3dBody):
        super().__init__()
        self._network = [network]  # in a list: not a part of the published model's names
        self.embed_dim = self.embed_dims = network.config.backbone.dim

    def forward(self, x: torch.Tensor, extra_embed=None) -> torch.Tensor:
        network = self._network[0]
        return network.backbone(x.to(network.backbone_dtype)).to(x.dtype).transpose(1, 2).unflatten(2, network.config.grid)


def _loaded(published, folder: Path, network: Sam3dBody, device: str) -> official.Sam3dBody:
    if not device.startswith("cuda"):
        return published.load(folder, network)
    return official.Sam3dBody.load(folder / "model.ckpt", folder / "assets" / "mhr_model.pt", network, device)
