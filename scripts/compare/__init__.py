# SPDX-License-Identifier: Apache-2.0
"""What `compare_with_reference.py` compares, a module for each."""

import sys
import types


def _make_torchvision_importable() -> None:
    """A torchvision that was built for another torch fails over its operators; only its transforms are needed here."""
    try:
        import torchvision  # noqa: F401
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision._meta_registrations"] = types.ModuleType("torchvision._meta_registrations")


_make_torchvision_importable()  # before anything that imports it
