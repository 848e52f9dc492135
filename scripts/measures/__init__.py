# SPDX-License-Identifier: Apache-2.0
"""What `bench_full.py` measures, part by part. They need torch, transformers and numpy, and no video library."""
