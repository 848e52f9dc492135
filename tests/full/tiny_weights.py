# SPDX-License-Identifier: Apache-2.0
"""A weights folder as SAM-Body4D's README makes it, of tiny random networks in the published formats, and the backend that takes it for the published one:
all that a run does is real but for the sizes."""

from dataclasses import replace
from pathlib import Path

import torch

from body4d_engine import memory
from body4d_engine.models.mhr import stand_in
from body4d_engine.models.moge import keys as moge_keys
from body4d_engine.models.moge.config import CONFIGS as MOGE
from body4d_engine.models.moge.model import MoGe
from body4d_engine.models.sam3 import model as sam3_model
from body4d_engine.models.sam3.keys import to_published
from body4d_engine.models.sam_3d_body import keys as body_keys
from body4d_engine.models.sam_3d_body.inference import Sam3dBody
from body4d_engine.weights.catalogue import CATALOGUE

from .sam3_nets import lively
from .sam_3d_body_nets import TINY, network

SAM3, MOGE2, BODY, RIG = "sam3/sam3.pt", "moge-2-vitl-normal/model.pt", "sam-3d-body-dinov3/model.ckpt", "sam-3d-body-dinov3/assets/mhr_model.pt"
FILES = (SAM3, MOGE2, BODY, RIG)


def write(folder: Path) -> Path:
    """The four files."""
    for name in FILES:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        moge = MoGe.build("tiny")
        net = network()
    torch.save({"model": to_published(lively(1).net.state_dict())}, folder / SAM3)
    torch.save({"model_config": MOGE["tiny"], "model": moge_keys.to_published(moge.state_dict())}, folder / MOGE2)
    torch.save({"state_dict": body_keys.to_published(net.state_dict(), net.config)}, folder / BODY)
    stand_in.save_torchscript(folder / RIG, net.config.vertices)
    return folder


def use(monkeypatch, folder: Path, home: Path, sizes: bool = True) -> None:
    """Makes a run use the folder, on the CPU, with its own settings folder. sizes: whether the catalogue knows how large whole files are."""
    for name, value in {"BODY4D_WEIGHTS": folder, "HF_HOME": home / "hub", "XDG_CONFIG_HOME": home / "config", "APPDATA": home / "config"}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setattr(memory, "best_device", lambda: "cpu")
    monkeypatch.setitem(sam3_model.CONFIGS, "full", sam3_model.CONFIGS["tiny"])
    load = Sam3dBody.load.__func__
    monkeypatch.setattr(Sam3dBody, "load", classmethod(lambda cls, folder, mhr, **more: load(cls, folder, mhr, configs=(TINY,), **more)))
    for name, weights in list(CATALOGUE.items()):
        files = tuple(replace(file, sha256=None, bytes=_size(folder / name / file.name) if sizes else None) for file in weights.files)
        monkeypatch.setitem(CATALOGUE, name, replace(weights, files=files))


def _size(file: Path) -> int | None:
    return file.stat().st_size if file.is_file() else None
