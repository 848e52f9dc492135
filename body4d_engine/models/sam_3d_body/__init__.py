# SPDX-License-Identifier: Apache-2.0
"""SAM 3D Body: crops of people to MHR bodies. Importing this loads nothing heavy; `inference.Sam3dBody` is the network."""
