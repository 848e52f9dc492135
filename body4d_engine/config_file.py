# SPDX-License-Identifier: Apache-2.0
"""`--config FILE.toml`: every option of a command, from a file.

The file has one table per command, whose keys are the options' long names, with - or _:

    [run]
    backend = "full"
    focal-mm = 35
    height = ["1=1.80", "2=1.65"]
    no-foot-lock = true

What is given on the command line wins over the file; options that may be given several times add up. Paths count from the working folder.
"""

import argparse
import difflib
import tomllib
from pathlib import Path

from .errors import Body4DError

OPTION = "--config"


def expanded(parser: argparse.ArgumentParser, argv: list[str]) -> list[str]:
    """`argv` with the options of its --config file before its own. Raises Body4DError `bad_config`."""
    before = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    before.add_argument(OPTION, type=Path)
    try:
        known, rest = before.parse_known_args(argv)
    except SystemExit:  # --config without a file: the parser itself says so
        return argv
    commands = next(action.choices for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    if known.config is None or not rest or rest[0] not in commands:
        return argv
    given = [token.split("=", 1)[0] for token in rest if token.startswith("-")]
    return [rest[0], *_options(known.config, rest[0], commands, given), *rest[1:]]


def _options(file: Path, command: str, commands: dict[str, argparse.ArgumentParser], given: list[str]) -> list[str]:
    tokens = []
    for table, values in _read(file).items():
        if table not in commands or not isinstance(values, dict):
            raise _wrong(file, f"has {table!r} at its top, where a table of a command is expected, such as [{command}]", table, commands)
        options = {option: action for action in commands[table]._actions for option in action.option_strings
                   if option.startswith("--") and option not in ("--help", OPTION)}
        excluded = {other for group in commands[table]._mutually_exclusive_groups for action in group._group_actions if set(action.option_strings) & set(given)
                    for one in group._group_actions for other in one.option_strings}
        for key, value in values.items():
            option = "--" + key.replace("_", "-")
            if option not in options:
                raise _wrong(file, f"has {key!r} in [{table}], and `body4d {table}` has no option {option}", option, options)
            if table == command and option not in excluded:
                tokens += _tokens(file, table, key, option, options[option], value)
    return tokens


def _tokens(file: Path, table: str, key: str, option: str, action: argparse.Action, value) -> list[str]:
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise _wrong(file, f"has {key} = {value!r} in [{table}], which is either true or false")
        return [option] if value else []
    repeated = isinstance(action, argparse._AppendAction)
    values = value if isinstance(value, list) and repeated else [value]
    if any(isinstance(one, bool) or not isinstance(one, (str, int, float)) for one in values):
        raise _wrong(file, f"has {key} = {value!r} in [{table}], which is a text or a number" + (", or a list of those" if repeated else ""))
    return [f"{option}={one}" for one in values]


def _read(file: Path) -> dict:
    try:
        with open(file, "rb") as stream:
            return tomllib.load(stream)
    except OSError as error:
        raise Body4DError(f"{file} cannot be read: {error.strerror}.", f"Name the file of {OPTION} as it is.", "bad_config") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Body4DError(f"{file} is no TOML: {error}.", "Correct that line.", "bad_config") from error


def _wrong(file: Path, what: str, word: str = "", known=()) -> Body4DError:
    near = difflib.get_close_matches(word, list(known), 1)
    names = ", ".join(sorted(one.removeprefix("--") for one in known))
    hint = f"Did you mean {near[0].removeprefix('--')}?" if near else f"Known are: {names}." if names else "Correct that."
    return Body4DError(f"{file} {what}.", hint, "bad_config")
