# SPDX-License-Identifier: Apache-2.0
"""`body4d setup full`: shows what would be installed and from where, asks, does it."""

import getpass
import json
import sys
from contextlib import contextmanager
from pathlib import Path

from ..errors import Body4DError
from ..events import Event, Notice, Progress
from ..weights import login
from ..weights.catalogue import needed
from ..weights.explaining import endpoint
from ..weights.places import hub_cache, remember, weights_folder
from . import doing
from .machine import Machine, this_machine
from .plan import Plan, gpu_words, plan


def set_up(given: Path | None, body: str, only: str, yes: bool, show: bool, as_json: bool) -> int:
    """The command. `only`: packages, weights or '' for both. Exit status: 0 all is there at the end, or was only shown; 1 the user said no.
    `as_json`: an error too is a line, {"error": {message, hint, code}}, before it is raised."""
    with _errors_as_lines(as_json):
        return _set_up(given, body, only, yes, show, as_json)


def log_in(as_json: bool = False) -> int:
    """Takes an access token of the hub from standard input and has huggingface_hub keep it."""
    with _errors_as_lines(as_json):
        login.log_in(getpass.getpass("Access token (nothing is shown): ") if sys.stdin.isatty() else sys.stdin.readline())
        print(json.dumps({"done": True}) if as_json else "Logged in.", flush=True)
    return 0


@contextmanager
def _errors_as_lines(as_json: bool):
    try:
        yield
    except Body4DError as error:
        if as_json:
            print(json.dumps({"error": error.to_json()}), flush=True)
        raise


def _set_up(given: Path | None, body: str, only: str, yes: bool, show: bool, as_json: bool) -> int:
    machine, folder = this_machine(), weights_folder(given)
    names = [] if only == "packages" else [weights.name for weights in needed(body)]
    located = doing.located_for(names, folder)
    steps = plan(machine, located, packages=only != "weights")
    if as_json:
        print(json.dumps({"plan": steps.to_json(), "weights_folder": str(folder or hub_cache()), "hub": endpoint(), "logged_in": login.logged_in()}),
              flush=True)
    else:
        print_plan(steps, machine, folder)
    if show:
        return 0
    if steps.steps and not yes and not _agreed():
        return 1
    if given and names:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Body4DError(f"The folder {folder} cannot be made: {error.strerror or error}.", "Name another one with --weights.", "not_writable") from error
        remember(folder)
    doing.carry_out(steps, located, folder, _tell_json if as_json else Lines().tell)
    left = [one.weights.title for one in doing.located_for(names, folder) if not one.whole]
    if left:  # a file that another program took away meanwhile
        raise Body4DError(f"Not everything is there: {', '.join(left)}.", "Run the same command again.", "weights_missing")
    if as_json:
        print(json.dumps({"done": True}), flush=True)
    else:
        print("Done. `body4d doctor` says how it stands." if names else "The packages are there. `body4d setup full` goes on with the weights.")
    return 0


def print_plan(steps: Plan, machine: Machine, folder: Path | None) -> None:
    """Everything that would be done, with sizes, sources and licences, on stdout."""
    gpus = "; ".join(map(gpu_words, machine.gpus)) or "no NVIDIA GPU"
    print(f"Python {'.'.join(map(str, machine.python))} at {sys.prefix}, {machine.system} on {machine.processor}, {gpus}" +
          (f", driver {machine.driver}" if machine.driver else ""))
    for note in steps.notes:
        print(f"note: {note}")
    for here in steps.present:
        print(f"here:    {here}")
    for step in steps.steps:
        print(f"install: {step.what}, {size(step.bytes)}, from {step.source} ({step.why})")
        if step.kind == "weights":
            print(f"         {', '.join(step.files)}\n         {step.licence}\n         {step.page}")
    if any(step.kind == "weights" for step in steps.steps):
        print(f"Weights go to {folder or hub_cache()}" + ("" if folder else ", the hub's cache; --weights FOLDER puts them elsewhere") + ".")
        if not login.logged_in():
            print("You are not logged in at the hub: `body4d setup full --login` takes an access token, as does `hf auth login`.")
    if steps.steps:
        unknown = any(step.bytes is None for step in steps.steps)
        print(f"Together {size(steps.bytes)} to download" + (", and those of unknown size." if unknown else "."))
    else:
        print("Nothing has to be installed.")


def size(count: int | None) -> str:
    if count is None:
        return "of a size that the source tells when it is fetched"
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


class Lines:
    """Shows events on stderr: on a terminal in place, elsewhere a line per file and tenth."""

    def __init__(self):
        self.shown: dict[str, int] = {}
        self.open = False

    def tell(self, event: Event) -> None:
        if isinstance(event, Notice):
            self._line(f"note: {event.message}")
        elif isinstance(event, Progress) and not event.total:
            self._line(event.note)
        elif isinstance(event, Progress):
            tenth = event.done * 10 // event.total
            text = f"{event.stage}: {event.note}, {size(event.done)} of {size(event.total)}"
            if sys.stderr.isatty():
                print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
                self.open = True
            elif self.shown.get(event.note) != tenth:
                self.shown[event.note] = tenth
                self._line(text)

    def _line(self, text: str) -> None:
        print(("\n" if self.open else "") + text, file=sys.stderr, flush=True)
        self.open = False


def _tell_json(event: Event) -> None:
    print(json.dumps(event.to_json()), flush=True)


def _agreed() -> bool:
    if not sys.stdin or not sys.stdin.isatty():
        print("Nothing was done. Run it again with --yes to install this.")
        return False
    try:
        return input("Install this? [y/N] ").strip().lower() in ("y", "yes")
    except EOFError:
        return False
