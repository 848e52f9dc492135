# SPDX-License-Identifier: Apache-2.0
"""Results as people and programs read them."""

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import Body4DError
from ..take import Take
from .base import Result

PLAIN_WIDTH = 160  # where there is no terminal to fit into


def print_results(take: Take, results: list[Result], console: Console | None = None) -> None:
    """One table per person on stdout, each number with its unit, over how many samples it is, and what it means."""
    console = console or Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    console.print(Text(f"{take.path.name}: {take.samples} samples at {take.clip['fps'][0] / take.clip['fps'][1] / take.clip['step']:.3f} per second"))
    names = {entry["id"]: f"{entry['name']} (id {entry['id']})" for entry in take.people}
    for person in dict.fromkeys(result.person for result in results):
        table = Table(title=Text(names.get(person, "Everyone: tracking"), "bold"), title_justify="left", box=None, pad_edge=False)
        table.add_column("number", no_wrap=True)
        table.add_column("value", justify="right", no_wrap=True)
        table.add_column("unit", no_wrap=True)
        table.add_column("samples", justify="right", no_wrap=True)
        table.add_column("what it says")
        for result in (r for r in results if r.person == person):
            shown = (f"{result.value:.4g}" if abs(result.value) < 1000 else f"{result.value:.0f}") if result.defined else "-"
            note = f" ({result.note})" if result.note else ""
            table.add_row(result.name, shown, result.unit, str(result.count or "-"), Text(result.meaning + note, "" if result.defined else "dim"))
        console.print(table)


def write_results(path: Path, take: Take, results: list[Result], **sources) -> None:
    """The same as JSON: take, frames, results with their values per sample. Raises Body4DError where the file cannot be written."""
    data = {"take": str(take.path), "id": take.id, "fps": take.clip["fps"], "frames": np.array(take.frames).tolist(),
            **{name: str(value) for name, value in sources.items() if value is not None}, "results": [result.to_json(per_sample=True) for result in results]}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(data, ensure_ascii=False, allow_nan=False), encoding="utf-8")
    except OSError as error:
        raise Body4DError(f"{path} could not be written: {error.strerror or error}.", "Choose another --json.", "json_not_writable") from error
