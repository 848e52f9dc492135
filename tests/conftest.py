# SPDX-License-Identifier: Apache-2.0
import os
import sys
from pathlib import Path

import pytest

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # many small matrices: threads cost more than they bring
ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Measured material that lies beside a developer's checkout; a user's clone has none."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the shared material beside the checkout")
    return folder


@pytest.fixture(scope="session")
def demo_clip() -> Path:
    """The pinned clip of two real people, downloaded once through pip; skips without a network."""
    sys.path.insert(0, str(ROOT / "scripts"))
    import setup_env
    from pythons import SetupError

    try:
        return setup_env.demo_clip()
    except SetupError as error:
        pytest.skip(f"the demo clip cannot be had: {error}")
