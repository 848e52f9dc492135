# SPDX-License-Identifier: Apache-2.0
"""SAM 3: masks of people from clicks, boxes, masks or the word "person". Importing this loads nothing heavy; `model.Sam3` is the network and `tracker.Tracker`
follows people through a video, one frame at a time."""
