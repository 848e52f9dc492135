# SPDX-License-Identifier: Apache-2.0
"""A person of sticks with MHR's joints, the order and the mirror symmetry of its parameters, in the real `Mhr`: for what depends on which parameter turns what.

Lengths and places are made up; only names, order and which axis is which are those of the published rig."""

import numpy as np
import torch

from body4d_engine.imports.mhr70 import MHR70
from body4d_engine.models.mhr import Mhr, keys, stand_in
from body4d_engine.models.mhr.names import JOINT_NAMES
from body4d_engine.models.sam_3d_body.inference import Sam3dBody

from .sam_3d_body_nets import network

INDEX = {name: number for number, name in enumerate(JOINT_NAMES)}
ACROSS = np.diag([-1.0, 1.0, 1.0])
FINGERS = ("pinky", "ring", "middle", "index", "thumb")
VERTICES = 200
TALL_M = 1.74
# The person's left side and middle: place in cm, y up, and the joint above.
PLACES = {
    "body_world": ((0, 0, 0), None), "root": ((0, 92, 0), "body_world"),
    "l_upleg": ((9, 88, 0), "root"), "l_lowleg": ((10, 48, 1), "l_upleg"), "l_foot": ((10, 9, -2), "l_lowleg"), "l_talocrural": ((10, 8, -1), "l_foot"),
    "l_subtalar": ((10, 5, -2), "l_talocrural"), "l_transversetarsal": ((10, 4, 3), "l_subtalar"), "l_ball": ((10, 2, 12), "l_transversetarsal"),
    "c_spine0": ((0, 97, 0), "root"), "c_spine1": ((0, 108, 0), "c_spine0"), "c_spine2": ((0, 119, 0), "c_spine1"), "c_spine3": ((0, 130, 0), "c_spine2"),
    "l_clavicle": ((3, 138, 2), "c_spine3"), "l_uparm": ((17, 138, 0), "l_clavicle"), "l_lowarm": ((37, 118, 0), "l_uparm"),
    "l_wrist_twist": ((55, 100, 0), "l_lowarm"), "l_wrist": ((55, 100, 0), "l_wrist_twist"),
    "c_neck": ((0, 146, 0), "c_spine3"), "c_head": ((0, 156, 1), "c_neck"),
}
CENTRAL = [("c_spine0", "c_spine1"), ("c_spine1", "c_spine2"), ("c_spine2",), ("c_spine3",), ("c_neck",), ("c_head",)]
ARM = [("clavicle", "x"), ("clavicle", "y"), ("clavicle", "z"), ("uparm", "x"), ("uparm", "y"), ("uparm", "z"), ("lowarm", "z"), ("wrist_twist", "x"),
       ("wrist", "y"), ("wrist", "z")]
LEG = [("upleg", "x"), ("upleg", "y"), ("upleg", "z"), ("lowleg", "z"), ("foot", "x"), ("talocrural", "z"), ("subtalar", "x"), ("transversetarsal", "x"),
       ("ball", "z")]
HAND = [("thumb0", "y"), ("thumb0", "z"), ("thumb1", "x"), ("thumb1", "y"), ("thumb1", "z"), ("thumb2", "z"), ("thumb3", "z"),
        *((f"{finger}1", "y") for finger in ("index", "ring", "pinky", "middle")),
        *((f"{finger}{part}", "z") for finger in ("index", "middle", "ring", "pinky") for part in (1, 2, 3)),
        *((f"{finger}1", "x") for finger in ("index", "ring", "pinky", "middle"))]
FEET = [("foot", "y"), ("subtalar", "z"), ("talocrural", "x"), ("ball", "x")]


def skeleton() -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Of the joints at rest: axes (127, 3, 3), places (127, 3) in cm, and the joints above."""
    places, above = dict(PLACES), {name: up for name, (_, up) in PLACES.items()}
    places = {name: np.array(place, float) for name, (place, _) in places.items()}
    wrist, along = places["l_wrist"], np.array([0.7, -0.7, 0.1])
    for number, finger in enumerate(FINGERS):
        chain = [name for name in JOINT_NAMES if name.startswith(f"l_{finger}")]
        for part, name in enumerate(chain):
            places[name] = wrist + (3 + 3.0 * part) * along + np.array([0, 0.0, 1.5]) * (number - 2)
            above[name] = chain[part - 1] if part else "l_wrist"
    for name in JOINT_NAMES:
        if not name.startswith("r_") and name not in places:
            limb = name.split("_twist")[0] if "_twist" in name and "wrist" not in name else "c_neck" if "neck" in name else "c_head"
            places[name], above[name] = places[limb], limb
    for name in JOINT_NAMES:
        if name.startswith("r_") and "eye" not in name:
            left = "l" + name[1:]
            places[name], above[name] = ACROSS @ places[left], above[left].replace("l_", "r_") if above[left].startswith("l_") else above[left]
    places |= {f"r_eye{end}": ACROSS @ places[f"l_eye{end}"] for end in ("", "_null")}
    above |= {f"r_eye{end}": "c_head" for end in ("", "_null")}
    axes = np.tile(np.eye(3), (len(JOINT_NAMES), 1, 1))
    for number, name in enumerate(JOINT_NAMES):
        if number >= 2:
            axes[number] = _axes("l" + name[1:] if name.startswith("r_") else name)
            axes[number] = -ACROSS @ axes[number] if name.startswith("r_") else axes[number]
    return axes, np.stack([places[name] for name in JOINT_NAMES]), [-1 if above[name] is None else INDEX[above[name]] for name in JOINT_NAMES]


def _axes(name: str) -> np.ndarray:
    """Columns x along the bone, z the hinge: to the person's left in the middle and the legs; of the arms so that a bend brings the hand to the front."""
    if name.startswith("c_") or "eye" in name:
        x, z = np.array([0, 1.0, 0]), np.array([1.0, 0, 0])
    elif any(part in name for part in ("leg", "foot", "talocrural", "subtalar", "transversetarsal", "ball")):
        x, z = np.array([0, 0, 1.0]) if name in ("l_transversetarsal", "l_ball") else np.array([0, -1.0, 0]), np.array([1.0, 0, 0])
    else:
        x = np.array([1.0, 0, 0]) if name == "l_clavicle" else np.array([0.5, -0.5, 0]) * 2**0.5
        z = np.cross(x, [0, 0, 1.0])
    return np.stack([x, np.cross(z, x), z], axis=1)


def transform() -> torch.Tensor:
    """(889, 249), as `mhr_model.pt` has it."""
    table = torch.zeros(keys.JOINTS, keys.PER_JOINT, 249)

    def turns(parameter: int, joint: str, axis: str, weight: float = 1.0) -> None:
        table[INDEX[joint], 3 + "xyz".index(axis), parameter] += weight

    def lengthens(parameter: int, joint: str, weight: float) -> None:
        for side, sign in (("l", 1), ("r", -1)) if joint[1] != "_" else (("", 1),):
            table[INDEX[f"{side}_{joint}" if side else joint], 0, parameter] = sign * weight

    for axis in range(3):
        table[1, axis, axis], table[1, 3 + axis, 3 + axis] = 10, 1
    parameter = 6
    for joints in CENTRAL:
        for axis in "xyz":
            turns(parameter, joints[0], axis)
            parameter += 1
            if len(joints) > 1:
                turns(parameter, joints[0], axis, 0.2)
                turns(parameter, joints[1], axis, 0.4)
                parameter += 1
    for side, begin in (("r", 30), ("l", 40)):
        for number, (joint, axis) in enumerate(ARM):
            turns(begin + number, f"{side}_{joint}", axis)
    for side, leg, hand, feet in (("r", 50, 68, 126), ("l", 59, 95, 122)):
        for begin, parts in ((leg, LEG), (hand, HAND), (feet, FEET)):
            for number, (joint, axis) in enumerate(parts):
                turns(begin + number, f"{side}_{joint}", axis)
    for parameter in (130, 139):
        for joint in ("c_spine1", "c_spine2", "c_spine3"):
            lengthens(parameter, joint, 3)
    for parameter, joints in ((133, ("lowarm", "wrist_twist")), (135, ("lowleg", "foot")), (142, ("lowarm",)), (143, ("wrist_twist",)), (149, ("lowleg",)),
                              (150, ("foot",))):
        for joint in joints:
            lengthens(parameter, joint, 10 if parameter > 135 else 5)
    return table.flatten(0, 1)


def archive() -> dict[str, torch.Tensor]:
    """Tensors by the names of the published archive."""
    tensors, (axes, places, above) = stand_in.archive(VERTICES), skeleton()
    parent = np.array([0, *above[1:]])
    offsets = np.einsum("jba,jb->ja", axes[parent], places - places[parent])
    offsets[0] = 0
    states = np.concatenate([places, _quaternions(axes), np.ones((len(axes), 1))], axis=1)
    points, joints = _surface(places)
    character = "character_torch."
    made = {"skeleton.joint_translation_offsets": offsets, "skeleton.joint_prerotations": _quaternions(axes[parent].transpose(0, 2, 1) @ axes),
            "skeleton.joint_parents": np.array(above, np.int32), "blend_shape.base_shape": points,
            "linear_blend_skinning.vert_indices_flattened": np.arange(VERTICES), "linear_blend_skinning.skin_indices_flattened": joints.astype(np.int32),
            "linear_blend_skinning.skin_weights_flattened": np.ones(VERTICES)}
    for name, value in made.items():
        old = tensors[character + name]
        tensors[character + name] = torch.as_tensor(value).to(old.dtype)
    tensors[f"{character}linear_blend_skinning.inverse_bind_pose"] = stand_in._inverse(torch.as_tensor(states, dtype=torch.float32))
    tensors[f"{character}parameter_transform.parameter_transform"] = transform()
    tensors["pose_correctives_model.pose_dirs_predictor.2.weight"].zero_()
    return tensors


def _quaternions(matrices: np.ndarray) -> np.ndarray:
    from scipy.spatial.transform import Rotation

    return Rotation.from_matrix(matrices).as_quat()


def _surface(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """200 points, half of them the mirror image of the others, and the joint that each hangs on. The first six: sole, heel and toe, left and right."""
    random = np.random.default_rng(0)
    names = ["l_ball", "l_subtalar", "l_ball"] + ["c_head"] * 17
    left = [(10, 0, 12), (10, 0, -5), (10, 0, 19)] + [(x, y, z) for x, y, z in zip(random.uniform(1, 8, 17), np.linspace(157, 100 * TALL_M, 17),
                                                                                random.uniform(-6, 6, 17))]
    for name in ("l_upleg", "l_lowleg", "l_uparm", "l_lowarm", "c_spine0", "c_spine1", "c_spine2", "c_spine3"):
        for point in places[INDEX[name]] + random.normal(0, 5, (10, 3)):
            left.append((max(point[0], 0.5), *point[1:]))
            names.append(name)
    points, joints = np.empty((VERTICES, 3)), np.empty(VERTICES, int)
    points[::2], points[1::2] = left, np.array(left) @ ACROSS
    joints[::2] = [INDEX[name] for name in names]
    joints[1::2] = [INDEX["r" + name[1:] if name.startswith("l_") else name] for name in names]
    return points, joints


def _joint_of(name: str) -> str | int:
    """The joint, or the number of the vertex, that a keypoint is."""
    side, _, part = name.partition("_")
    if name in ("nose", "neck"):
        return {"nose": "c_head", "neck": "c_neck"}[name]
    right = int(side == "right")
    at_feet = {"big_toe": 4, "small_toe": 0, "heel": 2}
    if part in at_feet:
        return at_feet[part] + right
    if part in ("eye", "ear"):
        return {"eye": 10, "ear": 20}[part] + right
    joints = {"shoulder": "uparm", "elbow": "lowarm", "hip": "upleg", "knee": "lowleg", "ankle": "foot", "wrist": "wrist", "olecranon": "lowarm",
              "cubital_fossa": "lowarm", "acromion": "clavicle"}
    finger = part.split("_")[0]
    ends = {"tip": "_null", "first": "3", "second": "2", "third": "1"}
    return f"{side[0]}_{joints[part] if part in joints else finger + ends[part.split('_')[1]]}"


def person() -> Sam3dBody:
    """A tiny random network with this body."""
    net = network()
    net.mhr = Mhr(keys.from_archive(archive()))
    for head in (net.body.pose_head, net.hand.pose_head):
        head.keypoint_mapping.zero_()
        for row, name in zip(head.keypoint_mapping, MHR70):
            at = _joint_of(name)
            row[at if isinstance(at, int) else VERTICES + INDEX[at]] = 1.0
        head.scale_mean.zero_()
        head.scale_comps.zero_()
        for number in (3, 6, 7, 13, 14):  # spine, upper and lower arms, upper and lower legs
            head.scale_comps[number, number] = 0.2
        head.right_hand.copy_(torch.arange(68, 95))
        head.left_hand.copy_(torch.arange(95, 122))
    return net.prepare()
