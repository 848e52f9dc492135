# SPDX-License-Identifier: Apache-2.0
"""Bodies that were seen from the wrong side, put right as the user says: left and right exchanged, or the body, or a limb, mirrored in depth.

A picture shows how far a bone tilts but not which way (Taylor 2000). So everything is mirrored in the plane through the root, or the limb's first joint, that
lies across the line of sight to the body: what is mirrored so covers the same pixels but for perspective. As for landmarks in the lite backend:

- sides: the whole body mirrored, and what was the left side is the right one: the same picture with the names exchanged, of a body that faces the other way.
- depth: the trunk leans and turns the other way, and so do all limbs; names stay.
- depth of a limb: the limb is turned as a whole at shoulder or hip. Of an arm every joint is mirrored (the elbow bends in the mirrored plane); of a leg the
  ankle is, and the knee goes on pointing to where the body faces.

The order of MHR's parameters, which of them are each other's mirror image and with which sign, and which axis of a joint does what: arXiv:2511.15586 and the
parameter names of facebookresearch/MHR 1.0.1. On that rig the exchange is exact.
"""

import numpy as np
from scipy.spatial.transform import Rotation

from ...fit.corrected import DEPTH, MIRRORED, SIDES
from ...imports.mhr70 import MHR70
from ...models.mhr.names import JOINT_NAMES
from ...people import LIMBS

ROOT = slice(3, 6)
_CENTRAL = np.arange(6, 30)  # spine, neck and head, by the axis each turns about: along the bone, to the front, to the person's left
_AXES = np.array(["xyz".index(axis) for axis in "xxyyzz" * 2 + "xyz" * 4])
_RIGHT, _LEFT = (np.concatenate([np.arange(*span) for span in spans]) for spans in (((30, 40), (50, 59), (68, 95), (126, 130)),
                                                                                    ((40, 50), (59, 68), (95, 122), (122, 126))))
# Of each limb: the three angles of its first joint, that joint, the one whose z axis is its hinge, and the one at its end.
_CHAINS = {"left arm": ((43, 44, 45), "l_uparm", "l_lowarm", "l_wrist"), "right arm": ((33, 34, 35), "r_uparm", "r_lowarm", "r_wrist"),
           "left leg": ((59, 60, 61), "l_upleg", "l_lowleg", "l_foot"), "right leg": ((50, 51, 52), "r_upleg", "r_lowleg", "r_foot")}
_CLAVICLES = {(40, 41, 42): "l_clavicle", (30, 31, 32): "r_clavicle"}
_ORDER = "xyz"  # as scipy writes Rz Ry Rx
SWAP = np.array([MHR70.index(name.replace("left_", "?").replace("right_", "left_").replace("?", "right_")) for name in MHR70])
_HALF_TURN = np.diag([1.0, -1.0, -1.0])  # between MHR's axes and the camera's
_ACROSS, _FRONT = np.diag([-1.0, 1.0, 1.0]), np.diag([1.0, 1.0, -1.0])  # mirrors of the body at rest in MHR's axes


def turned(figure, params: np.ndarray, root: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Parameters (N, 204) of bodies with their roots at (N, 3) -> float64, as the flags (N,) of `fit.corrected` want them."""
    out, mirror = params.astype(np.float64), _across(root)
    for flag, change in ((SIDES, _exchanged), (DEPTH, _mirrored)):
        here = np.flatnonzero(asked & flag)
        if len(here):
            out[here] = change(figure, out[here], mirror[here])
    for limb in LIMBS:
        here = np.flatnonzero(asked & MIRRORED[limb])
        if len(here):
            out[here] = _limbs(figure, out[here], out[here], mirror[here], (limb,))
    return out


def _across(root: np.ndarray) -> np.ndarray:
    """(N, 3, 3) the mirrors across the lines of sight to roots (N, 3), in the camera's axes."""
    sight = root / np.maximum(np.linalg.norm(root, axis=1, keepdims=True), 1e-9)
    return np.eye(3) - 2 * sight[:, :, None] * sight[:, None]


def _exchanged(figure, params: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    out = params.copy()
    out[:, _LEFT], out[:, _RIGHT] = params[:, _RIGHT], params[:, _LEFT]
    out[:, _CENTRAL] *= np.array([-1, -1, 1])[_AXES]
    return _turn_root(out, mirror, _ACROSS)


def _mirrored(figure, params: np.ndarray, mirror: np.ndarray) -> np.ndarray:
    out = params.copy()
    out[:, _CENTRAL] *= np.array([-1, 1, -1])[_AXES]
    at_rest = figure.frames(np.zeros_like(params[:1]))[0][0]
    for places, joint in _CLAVICLES.items():
        axes = at_rest[JOINT_NAMES.index(joint)]
        inside = axes.T @ _FRONT @ axes
        out[:, places] = _angles(inside @ _matrix(params[:, places]) @ inside)
    return _limbs(figure, params, _turn_root(out, mirror, _FRONT), mirror, LIMBS)


def _turn_root(params: np.ndarray, mirror: np.ndarray, at_rest: np.ndarray) -> np.ndarray:
    """The root turned as one that is mirrored at rest, in MHR's axes, and in the picture."""
    params[:, ROOT] = _angles(_HALF_TURN @ mirror @ _HALF_TURN @ _matrix(params[:, ROOT]) @ at_rest)
    return params


def _limbs(figure, before: np.ndarray, params: np.ndarray, mirror: np.ndarray, limbs) -> np.ndarray:
    """Parameters (N, 204) with these limbs where those `before` are mirrored to."""
    (turns, places), now = figure.frames(before), figure.frames(params)[0]
    out = params.copy()
    for limb in limbs:
        angles, *joints = _CHAINS[limb]
        first, hinge, end = (JOINT_NAMES.index(name) for name in joints)
        aside = turns[:, hinge, :, 2]
        if limb.endswith("leg"):
            aside = np.cross(places[:, end] - places[:, first], aside)
        aside = aside / np.maximum(np.linalg.norm(aside, axis=1, keepdims=True), 1e-9)
        whole = mirror @ (np.eye(3) - 2 * aside[:, :, None] * aside[:, None])
        above = now[:, first] @ _matrix(params[:, angles]).transpose(0, 2, 1)
        out[:, angles] = _angles(above.transpose(0, 2, 1) @ whole @ turns[:, first])
    return out


def _matrix(angles: np.ndarray) -> np.ndarray:
    return Rotation.from_euler(_ORDER, angles).as_matrix()


def _angles(matrix: np.ndarray) -> np.ndarray:
    return Rotation.from_matrix(matrix).as_euler(_ORDER)
