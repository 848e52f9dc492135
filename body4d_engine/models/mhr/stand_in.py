# SPDX-License-Identifier: Apache-2.0
"""A random body with the make of the published one, for tests and benchmarks where `mhr_model.pt` is not at hand.

As there: 127 joints in a tree of 16 levels with three limbs on the root, 204 model parameters of which 68 come last as proportions, 45 identity and
72 expression shapes, 2.8 joints per vertex, a first corrective layer that ties the 24 units of a joint to it, its parent and its children (53 136
weights), and a second one that is 1.7 % full, in blocks of one joint's units on one vertex. The numbers are drawn, not measured: it looks like a cloud.
"""
from pathlib import Path

import torch
from torch import Tensor

from . import keys
from .body import Mhr
from .stand_in_program import Program, compose, rotate

UNITS = 24  # of the first corrective layer for each joint
INFLUENCES = 51337 / keys.VERTICES  # joints per vertex
BLOCKS = 2.11  # joints that correct a vertex: 1.7 % of 125
_DEEPEST, _LIMBS = 15, 3


def archive(vertices: int = keys.VERTICES, seed: int = 0) -> dict[str, Tensor]:
    """Tensors by the names of the published archive; at full size 0.7 GB, nearly all of it the dense second corrective layer."""
    random = torch.Generator().manual_seed(seed)
    parents = _tree(random)
    offsets = torch.nn.functional.normalize(torch.randn(keys.JOINTS, 3, generator=random), dim=-1) * (2 + 8 * torch.rand(keys.JOINTS, 1, generator=random))
    offsets[0], offsets[1] = 0, torch.tensor([0.0, 92.4, 0.0])
    prerotations = torch.nn.functional.normalize(torch.randn(keys.JOINTS, 4, generator=random), dim=-1)
    prerotations[:2] = torch.tensor([0.0, 0.0, 0.0, 1.0])
    rest = _rest(parents, offsets, prerotations)
    owners = torch.randint(keys.STILL, keys.JOINTS, (vertices,), generator=random)
    lineage = [owners]
    for _ in range(3):
        lineage.append(torch.tensor(parents)[lineage[-1]].clamp_min(0))
    lineage = torch.stack(lineage, 1)  # (V, 4): a vertex's joint and the three above
    skin = _skin(lineage, random)
    base = rest[owners, :3] + 5 * torch.randn(vertices, 3, generator=random)
    character, correctives = "character_torch.", "pose_correctives_model.pose_dirs_predictor."
    indices = _activations(parents)
    return {
        f"{character}parameter_transform.parameter_transform": _parameter_transform(random),
        f"{character}skeleton.joint_translation_offsets": offsets,
        f"{character}skeleton.joint_prerotations": prerotations,
        f"{character}skeleton.joint_parents": torch.tensor(parents, dtype=torch.int32),
        f"{character}linear_blend_skinning.inverse_bind_pose": _inverse(rest),
        **{f"{character}linear_blend_skinning.{name}": value for name, value in skin.items()},
        f"{character}blend_shape.base_shape": base,
        f"{character}blend_shape.shape_vectors": 0.5 * torch.randn(keys.IDENTITY, vertices, 3, generator=random),
        "face_expressions_model.shape_vectors": 0.2 * torch.randn(keys.EXPRESSION, vertices, 3, generator=random),
        f"{character}mesh.faces": torch.randint(0, vertices, (2 * vertices - 4, 3), generator=random, dtype=torch.int32),
        f"{correctives}0.sparse_indices": indices,
        f"{correctives}0.sparse_weight": 0.8 * torch.randn(indices.shape[1], generator=random),
        f"{correctives}2.weight": _directions(lineage, random),
    }


def mhr(vertices: int = keys.VERTICES, seed: int = 0) -> Mhr:
    """Such a body, ready to use."""
    return Mhr(keys.from_archive(archive(vertices, seed)))


def save_torchscript(file: Path, vertices: int = keys.VERTICES, seed: int = 0) -> None:
    """Writes such a body as a TorchScript archive with the published program's names, signature and results."""
    torch.jit.script(Program(archive(vertices, seed)).eval()).save(str(file))


def parameters(people: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    """Identity (B, 45), model parameters (B, 204) and expression (B, 72) of a spread that people have."""
    random = torch.Generator().manual_seed(seed)
    spread = torch.cat([torch.ones(3), torch.ones(3), torch.full((124,), 0.4), torch.full((6,), 0.3), torch.full((68,), 0.2)])
    return (torch.randn(people, keys.IDENTITY, generator=random), spread * torch.randn(people, keys.PARAMETERS, generator=random),
            0.3 * torch.randn(people, keys.EXPRESSION, generator=random))


def _tree(random: torch.Generator) -> list[int]:
    parents, depths = [-1, 0] + [1] * _LIMBS, [0, 1] + [2] * _LIMBS
    while len(parents) < keys.JOINTS:
        last = len(parents) - 1
        on = last if depths[last] < _DEEPEST and torch.rand((), generator=random) < 0.85 else int(torch.randint(keys.STILL, last + 1, (), generator=random))
        if depths[on] < _DEEPEST:
            parents.append(on)
            depths.append(depths[on] + 1)
    return parents


def _rest(parents: list[int], offsets: Tensor, prerotations: Tensor) -> Tensor:
    """Skeleton states (127, 8) where all parameters are 0."""
    local = torch.cat([offsets, prerotations, torch.ones(len(parents), 1)], 1).double()
    states: list[Tensor] = []
    for joint, parent in enumerate(parents):
        states.append(compose(states[parent], local[joint]) if parent >= 0 else local[joint])
    return torch.stack(states).float()


def _inverse(states: Tensor) -> Tensor:
    back = states[:, 3:7] * torch.tensor([-1.0, -1.0, -1.0, 1.0])
    return torch.cat([-rotate(back, states[:, :3]), back, states[:, 7:]], 1)


def _parameter_transform(random: torch.Generator) -> Tensor:
    """(889, 249): the root's six, then one turn for each of 124 parameters, a third of them in part on a second joint, lengths, and two scales."""
    transform = torch.zeros(keys.JOINTS, keys.PER_JOINT, 249)
    for axis in range(3):
        transform[1, axis, axis], transform[1, 3 + axis, 3 + axis] = 10, 1
    turns = torch.randperm(3 * (keys.JOINTS - keys.STILL), generator=random)
    for number, turn in enumerate(turns[: 124 + 41].tolist()):
        transform[keys.STILL + turn // 3, 3 + turn % 3, 6 + number % 124] = 1 if number < 124 else -0.5
    lengths = torch.randperm(3 * (keys.JOINTS - keys.STILL), generator=random)
    for number, length in enumerate(lengths[: 6 * 10 + 66 * 2].tolist()):
        parameter = 130 + number // 10 if number < 60 else 136 + (number - 60) // 2
        transform[keys.STILL + length // 3, length % 3, parameter] = 5 if number < 60 else 2
    transform[40, 6, 202] = transform[80, 6, 203] = 1
    return transform.flatten(0, 1)


def _skin(lineage: Tensor, random: torch.Generator) -> dict[str, Tensor]:
    vertices = lineage.shape[0]
    counts = torch.full((vertices,), int(INFLUENCES))
    counts[torch.randperm(vertices, generator=random)[: round(vertices * (INFLUENCES - int(INFLUENCES)))]] += 1
    used = torch.arange(lineage.shape[1]) < counts[:, None]
    weights = (0.2 + torch.rand(lineage.shape, generator=random)) * used
    weights = weights / weights.sum(1, keepdim=True)
    return {"vert_indices_flattened": used.nonzero()[:, 0], "skin_indices_flattened": lineage[used].int(), "skin_weights_flattened": weights[used]}


def _activations(parents: list[int]) -> Tensor:
    tied = torch.eye(keys.JOINTS, dtype=torch.bool)
    for joint, parent in enumerate(parents):
        if parent >= keys.STILL:
            tied[joint, parent] = tied[parent, joint] = True
    tied = tied[keys.STILL :, keys.STILL :]
    return tied.repeat_interleave(UNITS, 0).repeat_interleave(6, 1).nonzero().T.contiguous()


def _directions(lineage: Tensor, random: torch.Generator) -> Tensor:
    """(3V, 3000): of each vertex its own joint, the one above, and for some the next."""
    vertices = lineage.shape[0]
    blocks = torch.zeros(vertices, 3, keys.JOINTS - keys.STILL, UNITS)
    corrected = torch.tensor([1.0, 1.0, BLOCKS - 2, 0.0]) > torch.rand(vertices, 4, generator=random)
    corrected &= lineage >= keys.STILL
    vertex, nth = corrected.nonzero().T
    joint = lineage[vertex, nth] - keys.STILL
    blocks[vertex, :, joint] = 0.1 * torch.randn(len(vertex), 3, UNITS, generator=random)
    return blocks.view(3 * vertices, -1)
