# SPDX-License-Identifier: Apache-2.0
"""Runs inside the Blender of a test: executes each ask.py beside it on the main thread and answers in ask.out."""

import contextlib
import io
import os
import traceback
from pathlib import Path

import bpy

HERE = Path(__file__).resolve().parent
names = {"bpy": bpy}
bpy.context.preferences.view.show_splash = False


def answer():
    if (HERE / "ask.py").exists():
        source = (HERE / "ask.py").read_text()
        os.remove(HERE / "ask.py")
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            try:
                exec(compile(source, "ask.py", "exec"), names)
            except Exception:  # the test sees it
                traceback.print_exc(file=printed)
        (HERE / "ask.tmp").write_text(printed.getvalue())
        os.rename(HERE / "ask.tmp", HERE / "ask.out")
    return 0.05


bpy.app.timers.register(answer, first_interval=0.5, persistent=True)
