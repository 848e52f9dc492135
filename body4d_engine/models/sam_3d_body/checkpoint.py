# SPDX-License-Identifier: Apache-2.0
"""Reads the published `model.ckpt` without running anything that lies in it, and builds a network for it without filling its weights twice."""

import pickle
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import Body4DError

CHECKPOINT = "model.ckpt"
_HINT = "Download it again: it may be incomplete. `body4d setup full` checks what is there."


# Classes of training options that a checkpoint may carry beside its tensors. Their code is not loaded: a plain dictionary takes their place.
_OPTION_CLASSES = ("yacs.config.CfgNode", "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata",
                   "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode", "typing.Any", "collections.defaultdict")


def read_checkpoint(file: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their published names, mapped from the file where its format allows.

    Raises Body4DError: `checkpoint_missing`, `checkpoint_unreadable` (broken, cut off, or it asks for more than tensors and options)."""
    if not file.is_file():
        raise Body4DError(f"{file} does not exist.", "`body4d setup full` says where the weights come from.", "checkpoint_missing")
    try:
        with torch.serialization.safe_globals([(OrderedDict, name) for name in _OPTION_CLASSES]):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise Body4DError(f"{file} is broken, or holds more than weights.", _HINT, "checkpoint_unreadable") from error
    content = content.get("state_dict", content) if isinstance(content, dict) else {}
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise Body4DError(f"{file} holds no weights.", _HINT, "checkpoint_unreadable")
    return tensors


@contextmanager
def without_weights() -> Iterator[None]:
    """Networks built inside have parameters without memory, to be assigned; their buffers are real."""
    register = nn.Module.register_parameter

    def register_empty(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        register(module, name, None if parameter is None else nn.Parameter(parameter.to("meta"), requires_grad=False))

    nn.Module.register_parameter = register_empty
    try:
        yield
    finally:
        nn.Module.register_parameter = register


def _is_zip(file: Path) -> bool:
    with open(file, "rb") as stream:
        return stream.read(2) == b"PK"
