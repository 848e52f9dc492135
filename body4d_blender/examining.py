# SPDX-License-Identifier: GPL-3.0-or-later
"""What `body4d doctor` says of the engine that is in use, wherever it runs: asked over the pipe, kept until it is asked again."""

import re
from typing import NamedTuple

from body4d_engine.errors import Body4DError

from . import connection

URL = re.compile(r"https?://[^\s'\"<>()]*[^\s'\"<>().,;:]")


class Check(NamedTuple):
    """One thing that was looked at. state: ok; note: works, with something to know; missing: only one backend needs it; wrong. next: what to do."""

    name: str
    state: str
    found: str
    next: str = ""

    @property
    def pages(self) -> list[str]:
        """The addresses that it speaks of."""
        return list(dict.fromkeys(URL.findall(f"{self.found} {self.next}")))


checks: list[Check] = []  # of the last examination
title = ""  # whose that was
running = False


def examine(online: bool = False, done=None) -> None:
    """Start the engine if need be, and ask it. Never waits: then `checks` hold what it said, or why it said nothing, and done() is called. online: have it
    ask the hub for the weights too."""
    global running

    def heard(result: dict, _) -> None:
        answer = result.get("examination")
        end(_title(answer), _read(answer) or [Check("Engine", "wrong", "Its answer could not be understood.", "Update the engine.")])

    def failed(error: Body4DError) -> None:
        end("", [Check("Engine", "wrong", error.message, error.hint)])

    def end(whose: str, found: list[Check]) -> None:
        global running, checks, title
        running, checks, title = False, found, whose
        connection.redraw()
        if done:
            done()

    if not running:
        running = True
        connection.ask("doctor", {"online": online}, done=heard, failed=failed)


def forget() -> None:
    """Another engine, or other packages: what was found does not hold any more."""
    global checks, title, running
    checks, title, running = [], "", False


def text() -> str:
    """The examination as lines, as `body4d doctor` prints it."""
    lines = [title] if title else []
    for check in checks:
        lines.append(f"{check.state:<8}{check.name}: {check.found}")
        lines += [f"{'':<8}-> {check.next}"] if check.next else []
    return "\n".join(lines)


def _title(answer) -> str:
    if not isinstance(answer, dict):
        return ""
    return f"Engine {answer.get('engine')}, Python {answer.get('python')}, {answer.get('platform')}"


def _read(answer) -> list[Check]:
    """Backends first, then the checks; [] where the answer is none."""
    try:
        found = [Check(f"Backend {name}", "ok" if backend["works"] else "missing", "works" if backend["works"] else "lacks " + ", ".join(backend["lacks"]))
                 for name, backend in answer["backends"].items()]
        return found + [Check(str(check["name"]), str(check["state"]), str(check["found"]), str(check["next"])) for check in answer["checks"]]
    except (KeyError, TypeError, AttributeError):
        return []
