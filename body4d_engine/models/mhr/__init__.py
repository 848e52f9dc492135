# SPDX-License-Identifier: Apache-2.0
"""MHR, the body model that SAM 3D Body predicts: `body.Mhr`; its file: `reader` and `keys`; a random body in its place: `stand_in`."""
from .body import Mhr

__all__ = ["Mhr"]
