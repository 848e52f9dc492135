# SPDX-License-Identifier: Apache-2.0
"""Who is who over time: a tracker that looks at one frame after the other, and what puts its pieces together afterwards."""
