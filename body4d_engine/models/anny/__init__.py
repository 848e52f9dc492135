# SPDX-License-Identifier: Apache-2.0
"""Anny, the body model of the lite backend, in numpy and scipy: see `body.py` (shape, skeleton, skin) and `pose.py` (what a fit may move)."""
