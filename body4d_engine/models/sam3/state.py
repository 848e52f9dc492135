# SPDX-License-Identifier: Apache-2.0
"""A tracker's memory as one file: safetensors, which carries no code, with the numbers beside the tensors as JSON."""

import json
import os
from pathlib import Path

import torch
from torch import Tensor

from ...errors import Body4DError
from .memory import Bank, Memory

VERSION = 1
_TENSORS = ("pointer", "features", "logits")


def write_state(path: Path, meta: dict, people: dict[int, Bank], prompts: dict) -> None:
    """Write to a file beside `path`, sync it and rename it."""
    from safetensors.torch import save

    tensors: dict[str, Tensor] = {}
    banks = {}
    for person, bank in people.items():
        banks[person] = {"latest": bank.latest, "reverse": bank.reverse, "prompted": [], "tracked": []}
        for kind in ("prompted", "tracked"):
            for frame, memory in getattr(bank, kind).items():
                banks[person][kind].append([frame, memory.score, memory.quality])
                tensors |= {f"{person}.{kind}.{frame}.{name}": getattr(memory, name) for name in _TENSORS if getattr(memory, name) is not None}
    for (frame, person), prompt in prompts.items():
        tensors |= {f"prompt.{frame}.{person}.{name}": value for name, value in vars(prompt).items() if value is not None}
    content = {"version": VERSION, **meta, "people": banks, "prompts": [list(key) for key in prompts]}
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}, {"state": json.dumps(content)})
    temporary = path.with_name(path.name + ".tmp")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def read_state(path: Path, device: torch.device) -> tuple[dict, dict[int, Bank], dict[tuple[int, int], dict[str, Tensor]]]:
    """The inverse of write_state, with the prompts' parts by (frame, person). Raises Body4DError `state_unreadable`."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            content = json.loads((file.metadata() or {})["state"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        if content["version"] != VERSION:
            raise ValueError(f"version {content['version']}")
        people = {int(person): Bank({}, {}, bank["latest"], bank["reverse"]) for person, bank in content["people"].items()}
        for person, bank in people.items():
            for kind in ("prompted", "tracked"):
                for frame, score, quality in content["people"][str(person)][kind]:
                    parts = {name: tensors.get(f"{person}.{kind}.{frame}.{name}") for name in _TENSORS}
                    getattr(bank, kind)[frame] = Memory(score=score, quality=quality, **{n: t if t is None else t.to(device) for n, t in parts.items()})
        prompts = {(frame, person): {name: tensors.get(f"prompt.{frame}.{person}.{name}") for name in ("points", "labels", "mask")}
                   for frame, person in content["prompts"]}
        return {name: content[name] for name in ("width", "height", "frames")}, people, prompts
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError) as error:
        raise Body4DError(f"The tracker's state {path} cannot be read: {error}", "Delete it: the people are tracked again from the start.",
                          "state_unreadable") from error
