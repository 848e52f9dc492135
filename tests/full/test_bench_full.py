# SPDX-License-Identifier: Apache-2.0
"""The benchmark of the full backend: that its instruments measure what they say, and that all of it runs on a CPU."""

import json
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


@pytest.fixture(scope="module")
def bench():
    sys.path.insert(0, str(SCRIPTS))
    import bench_full

    yield bench_full
    sys.path.remove(str(SCRIPTS))


def test_operators_that_compute_are_counted(bench):
    """Fails where views or memory count, or a layer made of several operators counts once for each of them and for itself."""
    from measures.device import flops, launches

    layer, x = torch.nn.Linear(3, 4), torch.ones(2, 3)
    with torch.inference_mode():
        assert launches(lambda: layer(x), "cpu") == {"operators": 1}
        assert launches(lambda: layer(x).view(8)[2:].unsqueeze(0) + 1, "cpu") == {"operators": 2}
        assert launches(lambda: torch.empty(5).fill_(1), "cpu") == {"operators": 1}
        assert flops(lambda: layer(x)) == 2 * 2 * 3 * 4


def test_time_is_told_apart_by_part(bench):
    """Fails where the time of a function inside another counts for both."""
    from measures.device import Clock

    clock = Clock("cpu")
    inner = clock.around("inner", lambda: time.sleep(0.05))
    outer = clock.around("outer", lambda: (time.sleep(0.02), inner(), inner()))
    outer()
    found = clock.seconds()
    assert found["inner"] > 0.09 and 0.015 < found["outer"] < 0.05 + (found["inner"] - 0.1)


def test_peaks_are_seen(bench):
    from measures.device import peak

    with peak("cpu") as without:
        time.sleep(0.1)
    with peak("cpu") as found:
        big = torch.ones(64 << 20)
        time.sleep(0.1)
        del big
    assert 0.2 < found["gib"] - without["gib"] < 0.4


def test_what_does_not_fit_or_fails_is_named(bench, monkeypatch):
    """Fails where one part takes the others with it, or nobody learns why it is missing."""
    args = Namespace(reference=None, minutes=8.5, parts="camera,reference,compile-body", size="tiny", device="cpu", frames=1, batch=2, memory_cap=None)
    monkeypatch.setitem(bench.PARTS, "camera", lambda args: 1 / 0)
    assert bench.part("camera", args, 100)["failed"].startswith("ZeroDivisionError")
    assert "--reference" in bench.part("reference", args, 500)["left_out"] and "left" in bench.part("camera", args, 3)["left_out"]
    monkeypatch.setitem(bench.LEAST, "compile-body", 0)
    assert "not done" in bench.part("compile-body", args, 0.5)["left_out"]


@pytest.mark.slow
def test_all_of_it_runs_on_a_cpu(tmp_path):
    """With tiny networks. What does not depend on their size is as it should be: 7 evaluations of MHR for a batch of bodies and 20 with hands, a few thousand
    operators at most, results that batches do not change."""
    out = tmp_path / "found.json"
    options = {"size": "tiny", "device": "cpu", "frames": 2, "batch": 4, "json": out, "parts": "camera,track,recover,shares,precision,reference,compile-body"}
    done = subprocess.run([sys.executable, str(SCRIPTS / "bench_full.py"), *(f"--{name}={value}" for name, value in options.items())], capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    parts = found["parts"]
    body, full = (parts["recover"][f"{mode}, a batch of 4"] for mode in ("body", "full"))
    assert body["mhr_evaluations"] == {"mesh": 1, "keypoints": 5, "joints": 1} and full["mhr_evaluations"] == {"mesh": 1, "keypoints": 17, "joints": 2}
    assert body["operators"] < 2300 and full["operators"] < 6100
    assert parts["precision"]["float32"]["bodies_apart_m"] > 0.05 and max(parts["precision"]["float32"]["other_batch_sizes_m"].values()) < 1e-4
    assert all(parts["precision"][dtype]["first_row_same_bits_in_other_company"] for dtype in ("float32", "bfloat16"))
    for mode in ("body", "full"):
        assert 0 < parts["shares"][mode]["floor_s"] and set(parts["shares"][mode]["by_part_s"]) >= {"crops", "encoder", "body decoder", "MHR"}
    assert parts["compile-body"]["not_compiled"] == "" and parts["compile-body"]["person_frame_s"]["compiled"] > 0
    assert "left_out" in parts["reference"] and found["whole_pipeline"]["peak_gib"] == max(found["whole_pipeline"]["by_stage_gib"].values())
    assert "track, 5 people: frames/s" in done.stdout
