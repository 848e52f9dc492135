# SPDX-License-Identifier: Apache-2.0
"""Every option of the command line can come from a file, and what is wrong in the file is told."""

import argparse

import pytest

from body4d_engine.cli import parser
from body4d_engine.config_file import OPTION, expanded
from body4d_engine.errors import Body4DError


def parsed(tmp_path, text: str, *argv: str):
    file = tmp_path / "body4d.toml"
    file.write_text(text)
    return parser().parse_args(expanded(parser(), [*argv, "--config", str(file)]))


def test_options_come_from_the_file_and_the_line_wins(tmp_path):
    text = """
        [run]
        out = "of-file.take"
        focal-px = 1234.5
        height = ["1=1.80", 1.7]
        no_foot_lock = true
        fresh = false
        click = "1:0,-3,4"
        step = 2
        [doctor]
        json = true
    """
    args = parsed(tmp_path, text, "run", "a.mp4", "--step", "3", "--height", "2=1.6")
    assert str(args.out) == "of-file.take" and args.focal_px == 1234.5 and args.height == ["1=1.80", "1.7", "2=1.6"] and args.click == ["1:0,-3,4"]
    assert args.no_foot_lock and not args.fresh and args.step == 3
    assert parsed(tmp_path, text, "doctor").json
    assert parsed(tmp_path, text, "run", "a.mp4", "--focal-mm", "35").focal_px is None  # of two that exclude each other the line's


def test_every_option_can_be_given(tmp_path):
    """Fails where an option of some command cannot be said in a file."""
    commands = next(action.choices for action in parser()._actions if isinstance(action, argparse._SubParsersAction))
    seen = 0
    for command, its in commands.items():
        place = [its._get_positional_actions()[0].choices[0]] if command == "setup" else ["x"] * len(its._get_positional_actions())
        required = {action.option_strings[0]: action.choices[0] if action.choices else "x"
                    for action in its._actions if action.required and action.option_strings}
        for option, action in its._option_string_actions.items():
            if option.startswith("--") and option not in ("--help", OPTION):
                value = "true" if action.nargs == 0 else f'"{action.choices[-1]}"' if action.choices else "7"
                line = [command, *place, *(word for name, value in required.items() if name not in action.option_strings for word in (name, value))]
                got = parsed(tmp_path, f"[{command}]\n{option[2:]} = {value}\n", *line)
                assert str(getattr(got, action.dest)).removesuffix(".0").strip("[']") in ("True", "7", action.choices and action.choices[-1]), option
                seen += 1
        assert OPTION in its.format_help()
    assert seen >= 39


@pytest.mark.parametrize(("text", "words"), [
    ("[run]\nfocal-xp = 3", ["focal-xp", "Did you mean focal-px"]),
    ("[run]\nconfig = 'x'", ["no option --config"]),
    ("[rum]\nstep = 3", ["'rum'", "Did you mean run"]),
    ("step = 3", ["'step'", "[run]"]),
    ("[run]\nfresh = 'yes'", ["true or false"]),
    ("[run]\nstep = [1, 2]", ["a text or a number"]),
    ("[run]\nheight = [true]", ["list of those"]),
    ("[doctor]\nfresh = true", ["body4d doctor", "json"]),  # another command's table is checked too
    ("[run\n", ["no TOML"]),
])
def test_what_is_wrong_is_told(tmp_path, text, words):
    with pytest.raises(Body4DError) as failed:
        parsed(tmp_path, text, "run", "a.mp4")
    assert failed.value.code == "bad_config" and not [word for word in words if word not in str(failed.value)], failed.value


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(Body4DError, match="cannot be read"):
        expanded(parser(), ["run", "a.mp4", "--config", str(tmp_path / "none.toml")])
