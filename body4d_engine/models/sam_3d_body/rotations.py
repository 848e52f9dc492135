# SPDX-License-Identifier: Apache-2.0
"""Rotations as SAM 3D Body's heads write them. Angles in radians, matrices act on column vectors.

The six-number form is that of Zhou et al., "On the Continuity of Rotation Representations in Neural Networks" (CVPR 2019): the first two columns,
made orthonormal."""

import torch
from torch import Tensor
from torch.nn.functional import normalize


def matrix_from_6d(six: Tensor) -> Tensor:
    """(..., 6) -> (..., 3, 3)."""
    first = normalize(six[..., :3], dim=-1)
    third = normalize(torch.linalg.cross(first, six[..., 3:]), dim=-1)
    return torch.stack([first, torch.linalg.cross(third, first), third], dim=-1)


def matrix_from_xyz(angles: Tensor) -> Tensor:
    """(..., 3) angles a, b, c -> Rz(c) Ry(b) Rx(a), as MHR composes a joint's angles."""
    (ca, cb, cc), (sa, sb, sc) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [cb * cc, sa * sb * cc - ca * sc, ca * sb * cc + sa * sc,
            cb * sc, sa * sb * sc + ca * cc, ca * sb * sc - sa * cc,
            -sb, sa * cb, ca * cb]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def xyz_from_matrix(matrix: Tensor) -> Tensor:
    """The inverse of `matrix_from_xyz`, b within a right angle; with b at a right angle c is taken as zero."""
    across = torch.hypot(matrix[..., 0, 0], matrix[..., 1, 0])
    locked = across < 1e-6
    a = torch.where(locked, torch.atan2(-matrix[..., 1, 2], matrix[..., 1, 1]), torch.atan2(matrix[..., 2, 1], matrix[..., 2, 2]))
    b = torch.atan2(-matrix[..., 2, 0], across)
    c = torch.where(locked, torch.zeros_like(a), torch.atan2(matrix[..., 1, 0], matrix[..., 0, 0]))
    return torch.stack([a, b, c], dim=-1)


def matrix_from_xzy(angles: Tensor) -> Tensor:
    """(..., 3) angles a, b, c -> Rx(a) Rz(b) Ry(c), as MHR composes a wrist's."""
    (ca, cb, cc), (sa, sb, sc) = angles.cos().unbind(-1), angles.sin().unbind(-1)
    rows = [cb * cc, -sb, cb * sc,
            ca * sb * cc + sa * sc, ca * cb, ca * sb * sc - sa * cc,
            sa * sb * cc - ca * sc, sa * cb, sa * sb * sc + ca * cc]
    return torch.stack(rows, dim=-1).unflatten(-1, (3, 3))


def xzy_from_matrix(matrix: Tensor) -> Tensor:
    """The inverse of `matrix_from_xzy`, b within a right angle."""
    a = torch.atan2(matrix[..., 2, 1], matrix[..., 1, 1])
    b = torch.atan2(-matrix[..., 0, 1], torch.hypot(matrix[..., 0, 0], matrix[..., 0, 2]))
    c = torch.atan2(matrix[..., 0, 2], matrix[..., 0, 0])
    return torch.stack([a, b, c], dim=-1)


def angle_between(first: Tensor, second: Tensor) -> Tensor:
    """(..., 3, 3) twice -> (...): the angle of the rotation from one to the other, 0 to pi."""
    trace = (first * second).sum(dim=(-2, -1))
    return torch.acos(((trace - 1) / 2).clamp(-1.0, 1.0))
