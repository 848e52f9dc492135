# SPDX-License-Identifier: Apache-2.0
"""Published weights: files read without running anything that lies in them, and networks built for them without filling their weights twice."""

import pickle
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import Body4DError

HINT = "Download it again: it may be incomplete. `body4d setup full` checks what is there."
# Classes of training options that a checkpoint may carry beside its tensors. Their code is not loaded: a plain dictionary takes their place.
_OPTION_CLASSES = ("yacs.config.CfgNode", "omegaconf.dictconfig.DictConfig", "omegaconf.listconfig.ListConfig", "omegaconf.base.ContainerMetadata",
                   "omegaconf.base.Metadata", "omegaconf.nodes.AnyNode", "typing.Any", "collections.defaultdict")


def read_pickled(file: Path) -> dict:
    """The dictionary of a file of torch.save: tensors, mapped from the file where its format allows, and plain values.

    What goes on to be used must be copied (`owned`): who writes the file anew pulls mapped weights from under a network's feet.
    Raises Body4DError: `checkpoint_missing`, `checkpoint_unreadable` (broken, cut off, or it asks for more than tensors and options)."""
    if not file.is_file():
        raise missing(file)
    try:
        with open(file, "rb") as stream:
            archive = stream.read(2) == b"PK"  # it can be mapped; an older file is read
        with torch.serialization.safe_globals([(OrderedDict, name) for name in _OPTION_CLASSES]):
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=archive)
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
        raise unreadable(file, error) from error
    return content if isinstance(content, dict) else {}


def read_tensors(file: Path, under: str) -> dict[str, Tensor]:
    """The tensors of such a file, of the dictionary `under` in it where there is one. Raises Body4DError as `read_pickled`, and where there is no tensor."""
    content = read_pickled(file)
    content = content.get(under, content)
    tensors = {name: value for name, value in content.items() if isinstance(value, Tensor)} if isinstance(content, dict) else {}
    if not tensors:
        raise unreadable(file, "it holds no weights")
    return tensors


def owned(tensor: Tensor, device=None, dtype: torch.dtype = torch.float32) -> Tensor:
    """A copy on the device, of that type where it is of floating point. One tensor of a file after the other so moved, no second network is held meanwhile."""
    return tensor.to(device, dtype if tensor.is_floating_point() else None, copy=True)


def missing(file: Path) -> Body4DError:
    return Body4DError(f"{file} does not exist.", "`body4d setup full` says where the weights come from.", "checkpoint_missing")


def unreadable(file: Path, why) -> Body4DError:
    """why: an exception, or words."""
    line = (str(why).splitlines() or [type(why).__name__])[0]
    return Body4DError(f"{file} cannot be read: {line}", HINT, "checkpoint_unreadable")


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Inside, what is wrong with the content of a file is told with the file's name."""
    try:
        yield
    except Body4DError as error:
        if str(file) in error.message:
            raise
        raise Body4DError(f"{file}: {error.message}", error.hint, error.code) from error


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
