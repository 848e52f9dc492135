# SPDX-License-Identifier: Apache-2.0
"""The settings of a run are checked in one place, and reach the stages that they are for."""

import pytest

from body4d_engine.backends import Lite, get_backend
from body4d_engine.cli import main, parser
from body4d_engine.errors import Body4DError
from body4d_engine.settings import DEFAULTS, checked


def test_what_is_not_said_is_as_usual():
    assert checked() == checked({}) == DEFAULTS
    assert checked({"heights": {"1": 1.8}, "smoothing": 2, "focal_mm": 35}) == {**DEFAULTS, "heights": {1: 1.8}, "smoothing": 2.0, "focal_mm": 35.0}


@pytest.mark.parametrize("given, message", [
    ({"smoothing": 5}, "from 0 to 4, not 5"), ({"smoothing": float("nan")}, "not nan"), ({"smoothing": "much"}, "much"), ({"smoothing": None}, "None"),
    ({"foot_lock": 1}, "true or false"), ({"heights": {"x": 1}}, "'x'"), ({"heights": {"1": 180}}, "180 is not a height"), ({"heights": [1]}, "list"),
    ({"focal_px": "wide"}, "wide"), ({"speed": 3}, "there is no speed"), ({"compile": 1}, "true or false"),
    ({"compile": True, "models": "official"}, "not for the official"), ({"memory_limit": -1e9}, "-1 GB"), ({"memory_limit": float("nan")}, "nan GB"),
    ({"memory_limit": float("inf")}, "inf GB")])
def test_what_makes_no_sense_is_told(given, message):
    with pytest.raises(Body4DError, match=message) as error:
        checked(given)
    assert error.value.code == "bad_settings"


def test_they_reach_their_stages():
    stages = {stage.name: stage.settings for stage in Lite().stages(checked({"smoothing": 0.5, "foot_lock": False, "heights": {"2": 1.6}, "focal_px": 900}))}
    assert stages["refine"]["smoothing"] == 0.5 and stages["refine"]["foot_lock"] is False
    assert stages["recover"] == {"heights": {"2": 1.6}} and stages["camera"]["focal_px"] == 900
    usual = {stage.name: stage.settings for stage in Lite().stages({})}
    assert {name for name in stages if stages[name] != usual[name]} == {"camera", "recover", "refine"}


def test_the_command_has_them():
    args = parser().parse_args(["run", "a.mp4", "--out", "a.take", "--smoothing", "2", "--no-foot-lock", "--compile"])
    assert args.smoothing == 2 and args.no_foot_lock and args.compile


def test_options_of_full_are_named_where_lite_runs(tmp_path, capsys):
    """They are no mistake: a file of options may be for both."""
    assert main(["run", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "a.take"), "--compile", "--memory-limit", "8"]) == 1
    assert "--compile, --memory-limit mean nothing to the lite backend" in capsys.readouterr().err
    assert main(["run", str(tmp_path / "none.mp4"), "--out", str(tmp_path / "a.take"), "--smoothing", "2"]) == 1
    assert "mean nothing" not in capsys.readouterr().err


def test_a_folder_of_weights_that_is_not_there_is_named(tmp_path):
    with pytest.raises(Body4DError, match="nowhere, which is not there") as error:
        get_backend("full", tmp_path / "nowhere")
    assert f"--weights {tmp_path / 'nowhere'}" in error.value.hint
