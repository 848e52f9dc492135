# SPDX-License-Identifier: Apache-2.0
"""The files of Body4D's lite backend. Where each comes from, and under which licence: THIRD_PARTY.md of the repository."""

import hashlib
from pathlib import Path

__version__ = "0.2.0"

SHA256 = {
    "pose_landmark_full.tflite": "e9a5c5cb17f736fafd4c2ec1da3b3d331d6edbe8a0d32395855aeb2cdfd64b9f",
    "movenet_multipose.tflite": "4d6c8773b9d1435c1848d3540718af647625f2730edf2ace445649e993d5d872",
    "hand_landmark_full.tflite": "11c272b891e1a99ab034208e23937a8008388cf11ed2a9d776ed3d01d0ba00e3",
    "hand_recrop.tflite": "67d996ce96f9d36fe17d2693022c6da93168026ab2f028f9e2365398d8ac7d5d",
    "face_landmark.tflite": "1055cb9d4a9ca8b8c688902a3a5194311138ba256bcc94e336d8373a5f30c814",
    "body.npz": "30412e63fd9468f6144139d4c58f18157df2ebdf97dda2a0a0d32c04c4c1089e",
}


def path(name: str) -> Path:
    """The file of that name. Raises FileNotFoundError, which names the package to install again."""
    found = Path(__file__).parent / name
    if not found.is_file():
        raise FileNotFoundError(f"{found} is missing. Install body4d-lite-models again.")
    return found


def verify() -> list[str]:
    """Names of the files that are missing or are not what was released; empty where all is well."""
    folder = Path(__file__).parent
    return [name for name, sha256 in SHA256.items()
            if not (folder / name).is_file() or hashlib.sha256((folder / name).read_bytes()).hexdigest() != sha256]
