# SPDX-License-Identifier: Apache-2.0
"""MoGe-2: from a picture to its focal length. Importing this loads nothing heavy; `model.MoGe` is the network, `focal` the solve (numpy only)."""
