# SPDX-License-Identifier: Apache-2.0
"""Body4D engine: people in a video become moving meshes. It never imports bpy."""

import os
import sys

if sys.platform == "darwin":  # torch reads it when it is loaded, which only we do later: what Metal lacks is computed on the CPU
    os.environ.setdefault("PYTORCH_ENABLE_MPS_FALLBACK", "1")

__version__ = "0.1.0"
