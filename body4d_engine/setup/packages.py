# SPDX-License-Identifier: Apache-2.0
"""The packages of the full backend, torch aside."""

from typing import NamedTuple


class Package(NamedTuple):
    """`name`: as pip knows it; `module`: as Python does. `oldest`: the oldest version that serves. `bytes`: of the download with what only this
    one brings along, as pip counts it for Python 3.11 on Linux."""

    name: str
    module: str
    oldest: tuple[int, ...]
    requirement: str
    bytes: int


PACKAGES = (
    Package("transformers", "transformers", (5, 23), "transformers>=5.23,<6", 17_500_000),
    Package("safetensors", "safetensors", (0, 6), "safetensors>=0.6,<1", 520_000),
    Package("huggingface_hub", "huggingface_hub", (1, 31), "huggingface_hub>=1.31,<3", 12_000_000),
    Package("numpy", "numpy", (2, 0), "numpy>=2", 16_900_000),
    Package("scipy", "scipy", (1, 11), "scipy>=1.11", 35_300_000),
    Package("opencv-python-headless", "cv2", (5,), "opencv-python-headless>=5", 61_200_000),
    Package("av", "av", (18,), "av>=18", 35_800_000),
    Package("scenedetect-headless", "scenedetect", (0, 7), "scenedetect-headless>=0.7", 440_000),
    Package("rich", "rich", (13,), "rich>=13", 1_800_000),
    Package("backports-strenum", "backports.strenum", (), "backports-strenum<1.3", 8_000),
)
