# SPDX-License-Identifier: Apache-2.0
"""Write `body4d_engine/proving/sample_people.npz` from two of the people that facebookresearch/MHR publishes (`img_subj*.npz`, Apache-2.0).

    python scripts/bake_sample_people.py img_subj00.npz img_subj01.npz
"""

import argparse
import sys
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "body4d_engine" / "proving" / "sample_people.npz"
EVERY = 16  # vertices: 1153 of 18439, all over the body


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("people", type=Path, nargs="+")
    people = [np.load(file) for file in parser.parse_args().people]
    indices = np.arange(0, len(people[0]["pred_vertices"]), EVERY, dtype=np.int32)
    parameters = {ours: np.stack([one[theirs] for one in people]) for ours, theirs in
                  (("shape", "shape_params"), ("model_params", "mhr_model_params"), ("expression", "expr_params"))}
    np.savez_compressed(TARGET, indices=indices, **parameters, vertices_m=np.stack([one["pred_vertices"][indices] for one in people]))
    print(f"{TARGET}: {len(people)} people, {len(indices)} vertices each, {TARGET.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())
