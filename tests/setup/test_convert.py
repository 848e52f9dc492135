# SPDX-License-Identifier: Apache-2.0
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import convert
import pythons
import setup_env

from .conftest import SCRIPTS

FAKE = Path(__file__).with_name("fake_tools.py")
TOOLS = convert.Tools([sys.executable, str(FAKE)], [sys.executable, str(FAKE), "scene"], {**os.environ, "PYTHONUTF8": "1"})


@pytest.fixture(autouse=True)
def fake_tools(monkeypatch):
    monkeypatch.setattr(convert, "set_up", lambda python, blender, options: TOOLS)
    monkeypatch.setattr(pythons, "choose", lambda blender=None: pythons.current())


@pytest.fixture
def footage(tmp_path) -> Path:
    folder = tmp_path / "Ünïcode und Leerzeichen ✓"
    folder.mkdir()
    return folder


def video(folder: Path, name: str, content: str = "") -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content or name, encoding="utf-8")
    return path


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def arguments_of(take: Path) -> list[str]:
    return json.loads((take / "arguments.json").read_text(encoding="utf-8"))


def test_a_video_becomes_five_things_beside_it_and_a_summary(footage, capfd):
    clip = video(footage, "tanz auf dem é.mov")
    assert convert.main([str(clip)]) == 0
    assert names(footage) == {clip.name, "tanz auf dem é.take", "tanz auf dem é.blend", "tanz auf dem é_overlay.mp4", "tanz auf dem é_report.html",
                              "tanz auf dem é_plots"}
    said, progress = capfd.readouterr()
    for words in ("Ana", "visible 2, occluded 1, filled 0, absent 1", "1623 px, assumed (0.8 x the diagonal)", "4 frames",
                  "track 0.125, refine 0.250, scene ", "overlay ", "report ", "upright copy", "rotated by 90", "Ana was lost (frames 0 to 2)",
                  "... and 2 more like this", "the clip is not there any more", str(footage / "tanz auf dem é.blend"),
                  str(footage / "tanz auf dem é_report.html"), str(footage / "tanz auf dem é_plots")):
        assert words in said
    assert said.count("The focal length is assumed") == 1 and "Give --focal-px" in said
    assert "track: frame 3 of 4" in progress


def test_out_and_no_overlay_and_no_report(footage, tmp_path):
    out = tmp_path / "new" / "folder"
    assert convert.main([str(video(footage, "a.mp4")), "--out", str(out), "--no-overlay", "--no-report", "--mesh-cache"]) == 0
    assert names(out) == {"a.take", "a.blend"} and names(footage) == {"a.mp4"}
    assert (out / "a.blend").read_text() == "scene of a.take cached"


def test_the_engine_is_told_what_the_user_said(footage):
    clip = video(footage, "a.mp4")
    told = ["--click=1:0,5,6", "--click=1:0,9,9,-", "--box=2:5,1,2,3,4", "--height=1=1.8", "--focal-mm=24", "--start=2", "--end=9", "--step=2", "--fresh"]
    assert convert.main([str(clip), *told]) == 0
    given = arguments_of(footage / "a.take")
    assert given[:4] == ["run", str(clip), "--out", str(footage / "a.take")] and set(told) <= set(given) and "--backend=lite" in given


def test_every_option_exists_in_the_engine(footage):
    cli = pytest.importorskip("body4d_engine.cli")
    told = ["--people=auto", "--click=1:0,5,6", "--box=2:5,1,2,3,4", "--height=1.8", "--focal-px=900", "--start=2", "--end=9", "--step=2",
            "--image-fps=25", "--fresh", "--backend=full", "--body-only", "--weights=w", "--memory-limit=8", "--models=official", "--smoothing=2"]
    options = convert.engine_options(convert.parser().parse_args(["a.mp4", *told]))
    parsed = cli.parser().parse_args(["run", "a.mp4", "--out", "a.take", "--summary-json", "s.json", *options])
    assert parsed.focal_px == 900 and parsed.click == ["1:0,5,6"] and parsed.end == 9 and parsed.fresh
    assert (parsed.backend, parsed.body_only, parsed.weights, parsed.memory_limit) == ("full", True, Path("w"), 8)
    assert (parsed.models, parsed.smoothing) == ("official", 2)
    for layout in ("overlay", "report"):
        cli.parser().parse_args(["export", "a.take", "--layout", layout, "--out", "a.mp4", "--clip", "a.mov"])


def test_a_folder_of_images_is_a_video(footage):
    video(footage, "walk.v2/0001.png")
    assert convert.main([str(footage / "walk.v2")]) == 0
    assert names(footage) == {"walk.v2", "walk.v2.take", "walk.v2.blend", "walk.v2_overlay.mp4", "walk.v2_report.html", "walk.v2_plots"}


def test_same_names_do_not_overwrite_one_another(footage, tmp_path):
    out = tmp_path / "out"
    clips = [video(footage, name, content) for name, content in (("one/a.mp4", "1"), ("two/a.mp4", "22"), ("two/A.mov", "3"))]
    command = [*map(str, clips), str(clips[0]), "--out", str(out)]
    for _ in range(2):  # the second time each goes on from its own
        assert convert.main(command) == 0
        owners = {take.name: json.loads((take / "take.json").read_text())["clip"]["path"] for take in out.glob("*.take")}
        assert owners == {"a.take": str(clips[0].resolve()), "a_2.take": str(clips[1].resolve()), "A_3.take": str(clips[2].resolve())}
    assert convert.main([str(clips[1]), "--out", str(out)]) == 0
    assert len(list(out.glob("*.take"))) == 3


def test_a_moved_video_goes_on_in_its_own_take(footage, tmp_path):
    clip, out = video(footage, "a.mp4", "content"), tmp_path / "out"
    assert convert.main([str(clip), "--out", str(out)]) == 0
    (footage / "elsewhere").mkdir()
    os.replace(clip, footage / "elsewhere" / "a.mp4")
    assert convert.main([str(footage / "elsewhere" / "a.mp4"), "--out", str(out)]) == 0
    assert len(list(out.glob("*.take"))) == 1


def test_a_blend_of_someone_elses_is_left_alone(footage, capfd):
    video(footage, "a.blend", "my own scene")
    assert convert.main([str(video(footage, "a.mp4"))]) == 0
    assert (footage / "a.blend").read_text() == "my own scene" and (footage / "a_2.blend").exists()
    assert "results are named a_2" in capfd.readouterr().out


def test_a_blend_is_left_alone_while_its_take_stays_the_same(footage, capfd):
    clip = video(footage, "a.mp4")
    assert convert.main([str(clip)]) == 0
    (footage / "a.blend").write_text("with lights")
    assert convert.main([str(clip)]) == 0
    assert (footage / "a.blend").read_text() == "with lights" and "a.blend is up to date and was left as it is" in capfd.readouterr().out


def test_no_blend_that_was_edited_is_ever_lost(footage, capfd):
    clip = video(footage, "a.mp4")
    for options in ([], ["--mesh-cache"], [], ["--mesh-cache"]):
        assert convert.main([str(clip), *options]) == 0
        (footage / "a.blend").write_text("my work after %s %d" % (options, len(list(footage.glob("*.blend")))))
    kept = sorted(path.name for path in footage.glob("a_before*.blend"))
    assert kept == ["a_before.blend", "a_before1.blend", "a_before2.blend"]
    assert all((footage / name).read_text().startswith("my work") for name in kept)
    assert "kept as a_before2.blend" in capfd.readouterr().out


def test_a_blend_of_our_own_that_nobody_touched_is_replaced_without_a_copy(footage):
    clip = video(footage, "a.mp4")
    assert convert.main([str(clip)]) == 0 and convert.main([str(clip), "--mesh-cache"]) == 0
    assert (footage / "a.blend").read_text() == "scene of a.take cached" and [p.name for p in footage.glob("*blend*")] == ["a.blend"]


def test_a_report_is_made_once_and_its_failure_costs_nothing_else(footage, capfd):
    clip, failing = video(footage, "a.mp4"), video(footage, "no_report.mp4")
    assert convert.main([str(clip), str(failing)]) == 1
    assert "no_report_report.html was not made" in capfd.readouterr().err and {"no_report.blend", "no_report_overlay.mp4"} <= names(footage)
    before = (footage / "a_report.html").stat().st_mtime_ns
    assert convert.main([str(clip)]) == 0 and (footage / "a_report.html").stat().st_mtime_ns == before


def test_a_failed_scene_gives_the_earlier_blend_back(footage, capfd):
    clip = video(footage, "no_scene.mp4")
    assert convert.main([str(clip)]) == 1
    assert "no_scene.blend was not built" in capfd.readouterr().err
    (footage / "no_scene.blend").write_text("of yesterday")
    assert convert.main([str(clip)]) == 1
    assert (footage / "no_scene.blend").read_text() == "of yesterday" and len(list(footage.glob("*.blend*"))) == 1
    assert "the take has no meshes" in capfd.readouterr().err


def test_the_others_are_converted_when_some_fail(footage, capfd):
    clips = [video(footage, name) for name in ("good.mp4", "no_people.mp4", "broken.mp4", "killed.mp4", "no_overlay.mp4", "last.mp4")]
    assert convert.main([*map(str, clips), str(footage / "missing.mp4")]) == 1
    said = capfd.readouterr().err
    listed = said[said.index("2 of 7 videos were converted") :]
    for words in ("no_people.mp4: Nobody was found in no_people.mp4. Click on a person.", "broken.mp4: exit code 1", "ValueError: a bug",
                  "no_overlay.mp4: no_overlay_overlay.mp4 was not made", "the clip is gone", "missing.mp4: there is no such file"):
        assert words in listed
    if os.name != "nt":
        assert "killed.mp4: it was ended by SIGKILL, perhaps for lack of memory" in listed
    assert {"good.blend", "last.blend", "last_overlay.mp4", "no_overlay.blend"} <= names(footage)


@pytest.mark.parametrize("arguments, words", [
    ([], "name a video, or try --demo"),
    (["a.mp4", "b.mp4", "--click", "1:0,5,5"], "one at a time"),
    (["a.mp4", "--demo", "--box", "1:0,5,5,9,9"], "one at a time"),
    (["a.mp4", "b.mp4", "--people", "people.json"], "one at a time"),
    (["a.mp4", "--focal-px", "1", "--focal-mm", "2"], "not allowed with"),
    (["a.mp4", "--out", __file__], "is not a folder"),
    (["a.mp4", "--nonsense"], "unrecognized"),
])
def test_wrong_usage(arguments, words, capfd):
    with pytest.raises(SystemExit) as stopped:
        convert.main(arguments)
    assert stopped.value.code == 2 and words in capfd.readouterr().err


def test_a_failed_set_up_says_what_to_do(footage, monkeypatch, capfd):
    def fails(python, blender, options):
        raise pythons.SetupError("The disk is full.", "Make room.")

    monkeypatch.setattr(convert, "set_up", fails)
    assert convert.main([str(video(footage, "a.mp4"))]) == 1
    assert capfd.readouterr().err == "The disk is full.\nMake room.\n" and names(footage) == {"a.mp4"}


@pytest.mark.skipif(os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="needs a folder that cannot be written")
def test_a_folder_that_cannot_be_written_is_told(footage, capfd):
    clip = video(footage, "a.mp4")
    footage.chmod(0o555)
    try:
        assert convert.main([str(clip)]) == 1
    finally:
        footage.chmod(0o755)
    assert "cannot be written" in capfd.readouterr().err


def test_an_out_folder_below_a_file_is_told(footage, capfd):
    assert convert.main([str(video(footage, "a.mp4")), "--out", str(video(footage, "file") / "deeper")]) == 1
    assert "cannot be written" in capfd.readouterr().err


def test_demo_puts_its_clip_beside_the_results(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, "demo_clip", lambda python: video(tmp_path, "cache/demo.mp4"))
    monkeypatch.chdir(tmp_path)
    assert convert.main(["--demo"]) == 0
    assert names(tmp_path) == {"cache", "body4d_demo.mp4", "body4d_demo.take", "body4d_demo.blend", "body4d_demo_overlay.mp4",
                               "body4d_demo_report.html", "body4d_demo_plots"}


# an installed Blender

@pytest.mark.skipif(os.name == "nt", reason="shell scripts stand in for Blender")
@pytest.mark.parametrize("where, given", [("blender", "blender"), ("blender", "."), ("Blender.app/Contents/MacOS/Blender", "Blender.app")])
def test_a_blender_is_found_by_file_folder_or_app(tmp_path, where, given):
    program = video(tmp_path, where, "#!/bin/sh\necho 'Blender 4.3.2'\n")
    program.chmod(0o755)
    assert convert.installed_blender(tmp_path / given).samefile(program)


@pytest.mark.skipif(os.name == "nt", reason="shell scripts stand in for Blender")
@pytest.mark.parametrize("says, words", [("Blender 3.6.9", "Body4D needs 4.2"), ("GIMP 3.0", "does not say that it is Blender")])
def test_other_programs_and_old_blenders_are_refused(tmp_path, says, words):
    program = video(tmp_path, "blender", "#!/bin/sh\necho '%s'\n" % says)
    program.chmod(0o755)
    with pytest.raises(pythons.SetupError, match=words):
        convert.installed_blender(program)
    with pytest.raises(pythons.SetupError, match="no Blender at"):
        convert.installed_blender(tmp_path / "nowhere")


# Ctrl-C

DRIVER = """
import signal, sys
sys.path.insert(0, %r)
import convert, pythons
tools = convert.Tools(*%r)
convert.set_up = lambda python, blender, options: tools
pythons.choose = lambda blender=None: pythons.current()
signal.signal(signal.SIGTERM, convert.interrupted)
try:
    sys.exit(convert.main(sys.argv[1:]))
except KeyboardInterrupt:
    sys.exit(130)
"""


@pytest.mark.skipif(os.name == "nt", reason="POSIX signals")
@pytest.mark.parametrize("sent, to_group", [(signal.SIGINT, True), (signal.SIGINT, False), (signal.SIGTERM, False)])
def test_stopping_stops_the_engine_and_a_second_run_goes_on(footage, sent, to_group):
    clip = video(footage, "slow.mp4")
    process = subprocess.Popen([sys.executable, "-c", DRIVER % (str(SCRIPTS), tuple(TOOLS)), str(clip)], start_new_session=True)
    pid_file = footage / "slow.take" / "pid"
    deadline = time.monotonic() + 30
    while not (pid_file.is_file() and pid_file.read_text()) and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(0.2)
    (os.killpg if to_group else os.kill)(process.pid, sent)
    assert process.wait(timeout=40) == 130
    assert (footage / "slow.take" / "stopped").is_file()
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)
    os.replace(clip, footage / "quick.mp4")
    (footage / "slow.take").rename(footage / "quick.take")
    assert convert.main([str(footage / "quick.mp4")]) == 0
