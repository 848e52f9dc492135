# SPDX-License-Identifier: Apache-2.0
"""Laying one set of points onto another."""

import numpy as np


def similarity(points: np.ndarray, onto: np.ndarray, with_scale: bool = True) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """scale (...), rotation (..., 3, 3) and shift (..., 3) with `scale * rotation @ point + shift` nearest to `onto` in the least-squares sense.

    points, onto (..., N, 3); points that are NaN in either are left out. NaN where fewer than three are known. Source: Umeyama 1991.
    """
    known = np.isfinite(points).all(-1) & np.isfinite(onto).all(-1)
    count = known.sum(-1)
    weight = known[..., None] / np.maximum(count, 1)[..., None, None]
    points, onto = np.where(known[..., None], points, 0.0), np.where(known[..., None], onto, 0.0)
    middle, target = (points * weight).sum(-2), (onto * weight).sum(-2)
    centred = (points - middle[..., None, :]) * known[..., None]
    u, s, vt = np.linalg.svd(np.swapaxes((onto - target[..., None, :]) * weight, -1, -2) @ centred)
    mirror = np.where(np.linalg.det(u) * np.linalg.det(vt) < 0, -1.0, 1.0)
    u[..., -1] *= mirror[..., None]
    s[..., -1] *= mirror
    rotation = u @ vt
    spread = (centred**2 * weight).sum((-1, -2))
    scale = s.sum(-1) / np.maximum(spread, 1e-12) if with_scale else np.ones(count.shape)
    scale = np.where(count >= 3, scale, np.nan)
    return scale, rotation, target - scale[..., None] * (rotation @ middle[..., None])[..., 0]


def moved(points: np.ndarray, transform: tuple[np.ndarray, np.ndarray, np.ndarray]) -> np.ndarray:
    """Points (..., N, 3) after the transform that `similarity` gave."""
    scale, rotation, shift = transform
    return scale[..., None, None] * points @ np.swapaxes(rotation, -1, -2) + shift[..., None, :]
