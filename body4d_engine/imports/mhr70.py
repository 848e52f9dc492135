# SPDX-License-Identifier: Apache-2.0
"""The names of SAM 3D Body's 70 keypoints, in its order (facebookresearch/sam-3d-body, metadata/mhr70.py), as a take writes names.

Where the take's own bodies have the same point it has the same name here, so that feet, metrics and references know it: `left_big_toe` is the
tip of the toe. Of a finger the first joint is the one next to its tip, the third the knuckle (of the thumb: the one next to the wrist).
"""


def _pairs(*parts: str) -> list[str]:
    return [f"{side}_{part}" for part in parts for side in ("left", "right")]


def _foot(side: str) -> list[str]:
    return [f"{side}_{part}" for part in ("big_toe", "small_toe", "heel")]


def _hand(side: str) -> list[str]:
    fingers = [f"{finger}_{part}" for finger in ("thumb", "index", "middle", "ring", "pinky") for part in ("tip", "first_joint", "second_joint", "third_joint")]
    return [f"{side}_{part}" for part in (*fingers, "wrist")]


MHR70 = ("nose", *_pairs("eye", "ear", "shoulder", "elbow", "hip", "knee", "ankle"), *_foot("left"), *_foot("right"), *_hand("right"), *_hand("left"),
         *_pairs("olecranon", "cubital_fossa", "acromion"), "neck")
