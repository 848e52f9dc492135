# SPDX-License-Identifier: Apache-2.0
"""The stages of the full backend: SAM 3, MoGe-2 and SAM 3D Body. Importing them loads no network; torch comes in when a stage runs."""
