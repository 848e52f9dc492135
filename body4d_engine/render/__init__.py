# SPDX-License-Identifier: Apache-2.0
"""Meshes become pictures on the CPU, in numpy."""
