# SPDX-License-Identifier: Apache-2.0
"""Body4D engine: people in a video become moving meshes. It never imports bpy."""

__version__ = "0.1.0"
