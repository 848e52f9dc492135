# SPDX-License-Identifier: Apache-2.0
"""The environment of `convert.py --backend full`: that of the lite backend once more, to which `body4d setup full` adds what suits this machine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Dict, List, Optional

import setup_env
from pythons import Python, SetupError

LACKS = "import json, sys; from body4d_engine.backends import BACKENDS; print(json.dumps(BACKENDS['full'].lacks(sys.argv[1] or None)))"
COMMAND = 'python "%s" full body4d setup full' % Path(__file__).resolve().with_name("setup_env.py")


def environment(python: Python, variables: Dict[str, str], weights: Optional[Path]) -> Path:
    """Its folder, once everything the backend needs is there. Gigabytes are only fetched after the user has seen what they are and has said yes; without a
    terminal to ask on, they are only shown. variables: of a child. weights: their folder, where that is not the usual one. Raises SetupError."""
    folder = setup_env.machine(python)
    program = str(setup_env.executable(folder))
    missing = lacks(program, variables, weights)
    if missing:
        print("The full backend lacks %s." % ", ".join(missing), flush=True)
        given = ["--weights", str(weights)] if weights else []
        subprocess.call([program, "-m", "body4d_engine", "setup", "full"] + given + ([] if _can_ask() else ["--show"]), env=variables)
        missing = lacks(program, variables, weights)
    if missing:
        again = COMMAND + (' --weights "%s"' % weights if weights else "")
        raise SetupError("The full backend is not complete; nothing was converted.",
                         "Run `%s`, which shows what it would install and asks, and then this again." % again)
    return folder


def lacks(program: str, variables: Dict[str, str], weights: Optional[Path]) -> List[str]:
    """What is missing there, in words. Raises SetupError."""
    done = subprocess.run([program, "-c", LACKS, str(weights or "")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                          universal_newlines=True, encoding="utf-8", errors="replace", env=variables)
    if done.returncode != 0:
        raise SetupError("The engine does not start: %s." % setup_env.last_lines(done.stderr, 2), "Delete %s and run this again." % Path(program).parents[1])
    return json.loads(done.stdout)


def _can_ask() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
