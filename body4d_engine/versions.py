# SPDX-License-Identifier: Apache-2.0
"""Which versions of what are at work."""

from importlib import import_module, metadata
from pathlib import Path

MODELS = "body4d-lite-models"
PACKAGES = ("numpy", "scipy", "opencv-python-headless", "av", "ai-edge-litert", "torch", "transformers", "safetensors")


def versions() -> dict[str, str | None]:
    """Version by package, None where there is none. Of our models also the folder they are used from, where that is not where pip put them."""
    return {MODELS: _models(), **{name: _installed(name) for name in PACKAGES}}


def _installed(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _models() -> str | None:
    name = MODELS.replace("-", "_")
    try:
        module = import_module(name)
    except ImportError:
        return None
    folder = Path(module.__file__).parent
    by_pip = _installed(MODELS) and metadata.distribution(MODELS).locate_file(name)
    return module.__version__ if by_pip and Path(by_pip).resolve() == folder.resolve() else f"{module.__version__} from {folder}"
