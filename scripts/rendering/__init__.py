# SPDX-License-Identifier: Apache-2.0
"""Clips of people with exact truth: `puppet` and `motions` move the body model, `looks` dresses it, `scenes` says what happens,
`truth` writes what is known, `blender` draws it. See `../render_clips.py`.

World axes: x right, y down, z away from where the camera starts; metres; the ground is y = 0. A person with heading 0 faces -z.
"""
