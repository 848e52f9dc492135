# SPDX-License-Identifier: Apache-2.0
"""The names of MHR's 127 joints, in its order (arXiv:2511.15586; facebookresearch/MHR 1.0.1), as its own rig writes them.

l_ and r_ are the person's own left and right, c_ the middle; a joint called twist..._proc follows the turn of the limb it lies on, a null ends a chain.
"""

ROOT = 1  # the pelvis; joint 0 is the world


def _twists(limb: str, first: int) -> list[str]:
    return [f"{limb}_twist{number}_proc" for number in range(first, 5)]


def _leg(side: str) -> list[str]:
    chain = [f"{side}_{part}" for part in ("upleg", "lowleg", "foot", "talocrural", "subtalar", "transversetarsal", "ball")]
    return [*chain, *_twists(f"{side}_lowleg", 1), *_twists(f"{side}_upleg", 0)]


def _finger(name: str, first: int) -> list[str]:
    return [*(f"{name}{number}" for number in range(first, 4)), f"{name}_null"]


def _arm(side: str) -> list[str]:
    chain = [f"{side}_{part}" for part in ("clavicle", "uparm", "lowarm", "wrist_twist", "wrist")]
    fingers = (("pinky", 0), ("ring", 1), ("middle", 1), ("index", 1), ("thumb", 0))
    hand = [joint for finger, first in fingers for joint in _finger(f"{side}_{finger}", first)]
    return [*chain, *hand, *_twists(f"{side}_lowarm", 1), *_twists(f"{side}_uparm", 0)]


_HEAD = ("neck", "neck_twist1_proc", "neck_twist0_proc", "head", "jaw", "teeth", "jaw_null", *(f"tongue{number}" for number in range(5)))
JOINT_NAMES = ("body_world", "root", *_leg("l"), *_leg("r"), *(f"c_spine{number}" for number in range(4)), *_arm("r"), *_arm("l"),
               *(f"c_{part}" for part in _HEAD), "r_eye", "r_eye_null", "l_eye", "l_eye_null", "c_head_null")
