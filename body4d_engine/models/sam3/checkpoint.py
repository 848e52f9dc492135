# SPDX-License-Identifier: Apache-2.0
"""Reads SAM 3's weights from a folder, without running anything that lies in it."""

import json
from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from ...errors import Body4DError
from ..checkpoints import read_tensors, unreadable
from .keys import COMPUTED, from_published

HUB, INDEX, PUBLISHED = "model.safetensors", "model.safetensors.index.json", "sam3.pt"


def read_folder(folder: Path, names: Iterable[str]) -> dict[str, Tensor]:
    """The tensors under their hub names, whichever of the two layouts the folder has. `names`: the hub names that are wanted.

    Raises Body4DError: `checkpoint_missing`, `checkpoint_unreadable`."""
    if (folder / INDEX).is_file():
        weights = {}
        for part in _parts(folder / INDEX):
            weights |= _safetensors(folder / part)
    elif (folder / HUB).is_file():
        weights = _safetensors(folder / HUB)
    elif (folder / PUBLISHED).is_file():
        weights = read_tensors(folder / PUBLISHED, "model")
    else:
        raise Body4DError(f"{folder} has neither {HUB} nor {PUBLISHED}.", "`body4d setup full` says where the weights come from.", "checkpoint_missing")
    if any(name.startswith(("detector.", "tracker.")) for name in weights):
        return from_published(weights, names)
    return {name: tensor for name, tensor in weights.items() if not COMPUTED.search(name)}


def _parts(index: Path) -> list[str]:
    try:
        return sorted(set(json.loads(index.read_text("utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, AttributeError, TypeError, OSError) as error:
        raise unreadable(index, error) from error


def _safetensors(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(file)
    except (SafetensorError, OSError, ValueError) as error:
        raise unreadable(file, error) from error
