# SPDX-License-Identifier: Apache-2.0
"""Fitting the body to landmarks: robust nonlinear least squares over the pose of one frame, of key frames with the shape, or of a whole clip."""
