# SPDX-License-Identifier: Apache-2.0
"""Compares the two choices of `--models` with each other, and both with what SAM-Body4D makes of the same networks, in float32 on a CPU.

    python scripts/compare_with_reference.py [--sam-3d-body CHECKOUT] [--dinov3 CHECKOUT] [--moge CHECKOUT] [--sam-body4d CHECKOUT]
                                             [--network dinov3|vith] [--json FILE]

--sam-3d-body facebookresearch/sam-3d-body: our SAM 3D Body and the published one through the adapter of `--models official`, on one random checkpoint and the
              same crops; then how far fifteen deliberate mistakes move the result.
--moge        microsoft/MoGe: focal lengths by both.
--sam-body4d  gaomingqi/sam-body4d: its batches of padded frames, its boxes and its smoothing against ours.
--dinov3      facebookresearch/dinov3, or the folder of it that SAM-Body4D brings: the published image encoder too; without it both sides share ours.

The published code needs its own packages (roma, einops, yacs, omegaconf, pytorch-lightning, opencv, torchvision; timm for vith; utils3d for MoGe). No weights
are needed: networks are small and random, MHR a stand-in of full size, both scaled until bodies differ as people do; the published loader reads the checkpoint
that our key map writes, so a name that is wrong on either side shows.

Ends with status 1 if a difference is above its tolerance, a mistake moves the result by less than ten times the tolerance, or the bodies differ by less than
5 cm. What differs on purpose is printed as such."""

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

try:
    from compare import bodies, focal, sam_body4d
    from compare.networks import NETWORKS
except ModuleNotFoundError as error:
    sys.exit(f"{error.name} is not here: use a Python that has what `body4d setup full` installs and what the published code needs.\n\n{__doc__}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("sam-3d-body", "dinov3", "moge", "sam-body4d"):
        parser.add_argument(f"--{name}", type=Path, metavar="CHECKOUT")
    parser.add_argument("--network", choices=NETWORKS, action="append", help="of SAM 3D Body, one only; both by default")
    parser.add_argument("--seed", type=int, help="of the random weights; by default one with which some hands are used and some refused")
    parser.add_argument("--json", type=Path, metavar="FILE")
    given = parser.parse_args()
    for checkout in filter(None, (given.sam_3d_body, given.dinov3, given.moge, given.sam_body4d)):
        if not checkout.is_dir():
            parser.error(f"{checkout} is no folder")
    if not (given.sam_3d_body or given.moge or given.sam_body4d):
        parser.error("name a checkout: --sam-3d-body, --moge or --sam-body4d")
    reports = []

    def report(module, *arguments) -> None:
        reports.append(module.compare(*arguments))
        module.show(reports[-1])
        for fault in reports[-1]["faults"]:
            print(f"  FAULT: {fault}")
        sys.stdout.flush()

    for network in (given.network or NETWORKS) if given.sam_3d_body else ():
        report(bodies, network, given.sam_3d_body, given.dinov3, given.seed)
    if given.moge:
        report(focal, given.moge)
    if given.sam_body4d:
        report(sam_body4d, given.sam_body4d)
    if given.json:
        given.json.write_text(json.dumps(reports, indent=1))
    return int(any(report["faults"] for report in reports))


if __name__ == "__main__":
    sys.exit(main())
