# SPDX-License-Identifier: Apache-2.0
"""Networks and body models: each builds itself, loads its weights and turns arrays into arrays. They know images, not videos."""
