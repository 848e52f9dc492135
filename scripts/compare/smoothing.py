# SPDX-License-Identifier: Apache-2.0
"""SAM-Body4D's smoothing and that of `refine`, on motion that is known: noise put on, and four frames hidden."""

from types import SimpleNamespace

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from body4d_engine.fit.local import Neighbourhoods
from body4d_engine.models.sam_3d_body.figure import Figure
from body4d_engine.stages.full.refine import Refine

FPS, FRAMES = 30, 90
HIDDEN = range(40, 44)
POSE, TURN, FULL = 6, slice(3, 6), 136                    # of MHR's parameters: where the pose begins, the body's turn, where the proportions begin


def smoothing(figure: Figure, kalman) -> dict[str, dict[str, tuple[float, float]]]:
    """Motion -> who -> (degrees RMS of all joints from the truth, largest turn of a joint between two frames, degrees)."""
    random, time = np.random.default_rng(5), np.arange(FRAMES) / FPS
    joints = figure.angles.joints
    walking = np.zeros((FRAMES, 204))
    walking[:, joints[1:25]] = 0.35 * np.sin(2 * np.pi * time[:, None, None] + random.uniform(0, 6, (24, 3)))
    turning = np.zeros((FRAMES, 204))
    turning[:, joints[0, 1]] = np.pi - 0.6 + 1.2 * np.linspace(0, 1, FRAMES)      # half way round, where angles jump from pi to -pi
    found = {}
    motions = {"a walk, 1.1 degrees of noise an angle": (walking, 0.02, ()), "standing still, 1.1 degrees of noise an angle": (0 * walking, 0.02, ()),
               "standing still, 0.3 degrees of noise an angle": (0 * walking, 0.005, ()), "turning past 180 degrees, 4 frames hidden": (turning, 0.002, HIDDEN)}
    for name, (truth, noise, hidden) in motions.items():
        seen = truth.copy()
        seen[:, joints] += random.normal(0, noise, (FRAMES, *joints.shape))
        seen[:, TURN] = (seen[:, TURN] + np.pi) % (2 * np.pi) - np.pi
        seen[list(hidden)] = 0
        found[name] = {who: _errors(figure, made, truth) for who, made in (("as measured", seen), ("SAM-Body4D", _theirs(kalman, seen, hidden)),
                                                                           ("ours", _ours(figure, seen, hidden)))}
    return found


def _errors(figure: Figure, made: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    ours, right = (figure.angles.rotations(params) for params in (made, truth))
    quaternions = ours.as_quat().reshape(FRAMES, -1, 4)
    turns = Rotation.from_quat(quaternions[1:].reshape(-1, 4)) * Rotation.from_quat(quaternions[:-1].reshape(-1, 4)).inv()
    return float(np.degrees(np.sqrt(((right.inv() * ours).magnitude() ** 2).mean()))), float(np.degrees(turns.magnitude().max()))


def _theirs(kalman, params: np.ndarray, hidden) -> np.ndarray:
    """As its batched inference calls it: twice over the pose, the second time knowing what is hidden, then over the body's turn."""
    flags, ids = {1: [int(frame not in hidden) for frame in range(FRAMES)]}, [[1]] * FRAMES
    mhr = {"body_pose": np.pad(params[:, POSE:FULL], ((0, 0), (0, 3))), "global_rot": params[:, TURN].copy()}
    mhr = {name: torch.from_numpy(values).float() for name, values in mhr.items()}
    mhr = kalman.kalman_smooth_mhr_params_per_obj_id_adaptive(mhr, num_frames=FRAMES, frame_obj_ids=ids, keys_to_smooth=["body_pose"])
    mhr = kalman.kalman_smooth_mhr_params_per_obj_id_adaptive(mhr, num_frames=FRAMES, frame_obj_ids=ids, keys_to_smooth=["body_pose"], vis_flags=flags)
    mhr = kalman.ema_smooth_global_rot_per_obj_id_adaptive(mhr, num_frames=FRAMES, frame_obj_ids=ids, vis_flags=flags)
    out = params.copy()
    out[:, POSE:FULL], out[:, TURN] = mhr["body_pose"].numpy()[:, :FULL - POSE], mhr["global_rot"].numpy()
    return out


def _ours(figure: Figure, params: np.ndarray, hidden) -> np.ndarray:
    """As `refine` does at smoothing 1: what is hidden lies between what is around it, and hardly counts."""
    params, weight = params.copy(), np.ones(FRAMES)
    if len(hidden):
        params[list(hidden)] = figure.angles.between(params[hidden[0] - 1], params[hidden[-1] + 1], np.arange(1, len(hidden) + 1) / (len(hidden) + 1))
        weight[list(hidden)] = 0.05
    half = Refine(smoothing=1.0)._half(SimpleNamespace(spacing_s=1 / FPS))
    return Refine._smooth(Neighbourhoods(0, FRAMES, half, np.zeros(FRAMES, int), weight), params, figure.angles, 0, FRAMES)
