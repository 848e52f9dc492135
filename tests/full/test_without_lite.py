# SPDX-License-Identifier: Apache-2.0
"""The full backend needs none of the packages of the lite one but those that `Full.packages` names."""

import subprocess
import sys

import pytest

STAGES = """
import sys
for name in ("ai_edge_litert", "body4d_lite_models"):
    sys.modules[name] = None  # an import of it fails
from body4d_engine.backends import Full
from body4d_engine.settings import checked
print(*(stage.name for stage in Full().stages(checked())))
from body4d_engine.stages.full import joining, masklets
"""


def test_its_stages_are_made_without_the_lite_models():
    pytest.importorskip("torch")
    done = subprocess.run([sys.executable, "-c", STAGES], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.split() == ["prepare", "camera", "track", "recover", "refine"], done.stderr
