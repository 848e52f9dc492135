# SPDX-License-Identifier: Apache-2.0
"""The published weights: which there are (`catalogue`), where they lie (`places`), whether they are whole (`verifying`), how they are fetched (`hub`).

Standard library only, but for `hub`, which needs huggingface_hub when something is fetched."""
from .catalogue import CATALOGUE, Weights
from .places import Located, locate

__all__ = ["CATALOGUE", "Located", "Weights", "locate"]
