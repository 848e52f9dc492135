# SPDX-License-Identifier: Apache-2.0
"""`python -m tests.full.tiny_engine serve`: the engine with a full backend of small random networks, for an add-on to talk to."""

from body4d_engine.backends import BACKENDS
from body4d_engine.serve import serve

from .sam_3d_body_nets import network
from .test_full_pipeline import Tiny


if __name__ == "__main__":
    BACKENDS["full"] = Tiny(network())
    raise SystemExit(serve())
