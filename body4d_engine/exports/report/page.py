# SPDX-License-Identifier: Apache-2.0
"""The report as one HTML page. All text that comes from outside goes through `escape`."""

import base64
import json
import shlex
from html import escape
from pathlib import Path
from string import Template

import numpy as np

from ...metrics import Result
from ...report import summarise
from ...stages.camera import FILM_WIDTH_MM
from ...take import State, Take
from .content import KINDS, PersonReport
from .drawing import svg
from .plots import Bins, Panel, number_text, rounded, ruler, unit_text
from .stills import Shot

FEW = 3  # people whose numbers are unfolded
MOST_RANGES = 40  # of a kind of doubt that are listed for a person
HOW_FOCAL = {"metadata": "from the clip's metadata", "assumed": "assumed", "estimated": "estimated"}


def page(take: Take, people: list[PersonReport], timelines: dict[int, list[Panel]], shots: list[Shot]) -> str:
    """The whole document. timelines: by person, as `plots.panels` makes them."""
    summary, clip = summarise(take), take.clip
    template = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))
    return template.substitute(
        title=escape(clip["name"]), facts=_facts(take, summary, people), overview=_overview(shots, take.frames), people=_people(take, people),
        sections="".join(_section(take, person, timelines.get(person.id), shots, len(people) <= FEW) for person in people),
        events=_events(take, people), stages=_stages(take), command=escape(command(take)), data=_data(take, people))


def _facts(take: Take, summary: dict, people: list[PersonReport]) -> str:
    clip, focal = take.clip, summary["focal"]
    rate = clip["fps"][0] / clip["fps"][1]
    how = focal["note"] if focal["method"] == "user" else f"{HOW_FOCAL.get(focal['method'], focal['method'])}: {focal['note']}"
    used = f"{take.samples} of {clip['frame_count']}: every {clip['step']}. from {take.frames[0]} to {take.frames[-1]}" if take.samples < clip["frame_count"] \
        else f"{take.samples}, {take.samples / rate:.2f} s"
    versions = take.to_json()["versions"]
    scales = list(dict.fromkeys(person.scale for person in people))
    rows = [
        ("Clip", f"{clip['name']}, {clip['width']} × {clip['height']} px at {rate:.5g} frames per second"),
        ("Frames", used),
        ("Shots", str(len(clip["shots"]))) if len(clip.get("shots") or []) > 1 else None,
        ("Backend", f"{take.backend}, body4d-engine {versions.get('body4d-engine', 'of unknown version')}"),
        ("Unfinished", f"{take.working['stage']} is still at work or was cut short") if take.working else None,
        ("Focal length", f"{focal['px']:.0f} px = {focal['mm']:.1f} mm ({FILM_WIDTH_MM:g} mm along the longer side), {how}"),
        ("Scale", "; ".join(scales) or "nobody was found"),
        ("In Blender", f"{summary['proxy']['file']} stands in for the clip: {'; '.join(summary['proxy']['reasons'])}") if summary["proxy"] else None,
    ]
    return "".join(f"<div><dt>{name}</dt><dd>{escape(text)}</dd></div>" for name, text in filter(None, rows))


def _overview(shots: list[Shot], frames: range) -> str:
    found = sorted((shot for shot in shots if shot.still.person is None), key=lambda shot: shot.still.sample)
    return "".join(_figure(shot, f"Frame {frames[shot.still.sample]}", f"Frame {frames[shot.still.sample]} with everyone's meshes over the footage.")
                   for shot in found)


def _figure(shot: Shot, caption: str, alt: str, link: str = "") -> str:
    data = base64.b64encode(shot.data).decode("ascii")
    text = f'<a href="{link}">{escape(caption)}</a>' if link else escape(caption)
    return (f'<figure><img src="data:image/jpeg;base64,{data}" width="{shot.width}" height="{shot.height}" alt="{escape(alt)}" decoding="async">'
            f"<figcaption>{text}</figcaption></figure>")


def _swatch(person: PersonReport) -> str:
    return f'<i class="swatch" style="background:{_css(person.color)}"></i>'


def _css(color) -> str:
    return "#" + "".join(f"{round(255 * part):02x}" for part in color)


def _people(take: Take, people: list[PersonReport]) -> str:
    """One row each: where to look first."""
    rows = []
    for person in people:
        name = f'<th scope="row"><a href="#p{person.id}">{_swatch(person)}{escape(person.name)}</a></th>'
        if person.missing:
            rows.append(f'<tr>{name}<td colspan="8">{escape(person.missing)}</td></tr>')
            continue
        counts, results = person.counts(), {result.name: result for result in person.numbers}
        doubtful, there = int(person.doubtful().sum()), max(len(person.state) - counts[State.ABSENT], 1)
        confidence = person.curve("confidence")
        cells = [str(counts[state]) for state in (State.VISIBLE, State.OCCLUDED, State.FILLED, State.ABSENT)]
        cells += [number_text(np.nanmean(confidence.values)) if confidence else "–", number_text(results["jitter"].value),
                  number_text(results["foot_sliding"].value), f"{100 * doubtful / there:.0f}\u202f%"]
        rows.append(f"<tr>{name}{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>")
    if not rows:
        return "<p>Nobody was found.</p>"
    heads = ("Person", "Visible", "Occluded", "Filled", "Absent", "Confidence", "Jitter<br><small>10 m/s³</small>",
             "Foot sliding<br><small>mm/frame</small>", "Doubtful")
    return (f'<div class="wide"><table class="numbers"><thead><tr>{"".join(f"<th scope=col>{head}</th>" for head in heads)}</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>")


def _section(take: Take, person: PersonReport, timeline: list[Panel] | None, shots: list[Shot], few: bool) -> str:
    head = f'<section class="person" id="p{person.id}"><h2>{_swatch(person)}{escape(person.name)} <small>id {person.id}</small></h2>'
    if timeline is None:
        return f"{head}<p>{escape(person.missing)}</p></section>"
    frames, own = take.frames, [shot for shot in shots if shot.still.person == person.id]
    marks = ruler(frames)
    plots = "".join(_panel(panel, [x for x, _ in marks], person) for panel in timeline)
    labels = "".join(f'<span style="left:{100 * x:.2f}%">{frame}</span>' for x, frame in marks)
    stills = "".join(_figure(shot, f"{frames[shot.still.sample]}: {shot.still.caption}", f"{person.name} at frame {frames[shot.still.sample]} "
                             f"({shot.still.caption}): footage, and with the mesh.", f"#p{person.id}-{frames[shot.still.sample]}") for shot in own)
    return (f'{head}<p class="scale">Scale {escape(person.scale)}.</p>'
            f'<div class="timeline" data-person="{person.id}" tabindex="0" role="group" aria-label="Timelines of {escape(person.name)}; arrow keys move '
            f'through the frames" style="--own:{_css(person.color)}"><output class="readout" aria-live="polite"></output><div class="plots">{plots}'
            f'<div class="ruler" aria-hidden="true">{labels}</div><div class="cursor" hidden></div></div></div>'
            f"{_doubts(person, frames)}"
            + (f'<h3>Looked at closely</h3><div class="stills">{stills}</div>' if stills else "")
            + f"<details{' open' if few else ''}><summary>All numbers</summary>{_numbers(person.numbers)}</details></section>")


def _panel(panel: Panel, grid: list[float], person: PersonReport) -> str:
    unit = f" <span>{escape(panel.unit)}</span>" if panel.unit else ""
    ticks = "".join(f'<span class="tick {"top" if y else "bottom"}" aria-hidden="true">{text}</span>' for y, text in panel.ticks)
    return (f'<div class="panel"><div class="head"><b>{escape(panel.title)}{unit}</b><span>{escape(panel.about)}</span></div>'
            f'<div class="plot">{svg(panel, grid, f"{panel.title} of {person.name}: {panel.about}")}{ticks}</div>'
            f'<p class="meaning">{escape(panel.meaning)}</p></div>')


def _doubts(person: PersonReport, frames: range) -> str:
    rows = []
    for kind, meaning in KINDS.items():
        doubts = [doubt for doubt in person.doubts if doubt.kind == kind]
        if doubts:
            shown = sorted(sorted(doubts, key=lambda doubt: -doubt.severity)[:MOST_RANGES], key=lambda doubt: doubt.begin)
            links = ", ".join(_link(person.id, frames[doubt.begin], frames[doubt.stop - 1], frames[doubt.worst]) for doubt in shown)
            more = f" and {len(doubts) - len(shown)} lesser ones" if len(doubts) > len(shown) else ""
            rows.append(f"<tr><th scope=row>{kind}</th><td>{meaning}</td><td>{links}{more}</td></tr>")
    if not rows:
        return "<p>No doubtful frames.</p>"
    return ('<h3>Doubtful frames</h3><div class="wide"><table class="texts"><thead><tr><th scope=col>Kind<th scope=col>What it says<th scope=col>Frames</tr>'
            f"</thead><tbody>{''.join(rows)}</tbody></table></div>")


def _link(person: int | None, first: int, last: int, target: int) -> str:
    text = str(first) if first == last else f"{first}–{last}"
    return f'<a href="#p{person}-{target}">{text}</a>' if person is not None else text


def _numbers(results: list[Result]) -> str:
    rows = "".join(
        f'<tr{"" if result.defined else " class=none"}><th scope=row>{escape(result.name.replace("_", " "))}</th><td>{number_text(result.value)}</td>'
        f"<td>{escape(unit_text(result.unit))}</td><td>{escape(result.meaning)}{escape(f' ({result.note})' if result.note else '')}</td></tr>"
        for result in results)
    return ('<div class="wide"><table class="texts numbered"><thead><tr><th scope=col>Number<th scope=col>Value<th scope=col>Unit<th scope=col>What it says'
            f"</tr></thead><tbody>{rows}</tbody></table></div>")


def _events(take: Take, people: list[PersonReport]) -> str:
    """Everything the stages had to say; what differs only in its frames is told once. In the order of frames, first what is of all of them."""
    names = {person.id: person.name for person in people}
    grouped: dict[tuple, list[dict]] = {}
    for notice in take.notices():
        grouped.setdefault((notice["stage"], notice["person"], notice["message"]), []).append(notice)
    if not grouped:
        return "<p>Nothing had to be said.</p>"
    rows = []
    for (stage, person, message), same in sorted(grouped.items(), key=lambda told: -1 if told[1][0]["frame"] is None else told[1][0]["frame"]):
        target = person if person in names else next(iter(names), None)
        ranges = [_link(target, n["frame"], n["frame"] if n["last_frame"] is None else n["last_frame"], n["frame"]) for n in same if n["frame"] is not None]
        who = escape(names.get(person, f"Person {person}")) if person is not None else "everyone"
        rows.append(f"<tr><td>{', '.join(ranges) or 'all'}</td><td>{who}</td><td>{escape(message)}</td><td>{escape(stage)}</td></tr>")
    return ('<div class="wide"><table class="texts"><thead><tr><th scope=col>Frames<th scope=col>Who<th scope=col>What happened<th scope=col>Stage</tr></thead>'
            f"<tbody>{''.join(rows)}</tbody></table></div>")


def _stages(take: Take) -> str:
    stages = take.to_json()["stages"]
    seconds = "".join(f"<tr><th scope=row>{escape(name)}</th><td>{entry['seconds']:.2f} s</td><td>{entry['seconds'] / take.samples:.3f} s per frame</td></tr>"
                      for name, entry in stages.items())
    versions = "".join(f"<tr><th scope=row>{escape(str(name))}</th><td>{escape(str(value))}</td></tr>" for name, value in take.to_json()["versions"].items())
    settings = escape(json.dumps(take.settings, ensure_ascii=False, indent=1, default=str))
    return (f'<div class="columns"><div><h3>Time</h3><table class="texts">{seconds}</table></div>'
            f'<div><h3>Versions</h3><table class="texts">{versions}</table></div>'
            f"<div><h3>Settings</h3><pre>{settings}</pre></div></div>")


def command(take: Take) -> str:
    """The command line that makes such a take again; where an imported one came from is not known."""
    clip, settings = take.clip, take.settings
    if take.stage("import"):
        return f"body4d import SOURCE --out {shlex.quote(take.path.name)}"
    parts = ["python", "scripts/convert.py", clip["path"] or clip["name"]]
    parts += [f"--backend={take.backend}"] if take.backend != "lite" else []
    for name in ("focal_px", "focal_mm"):
        parts += [f"--{name.replace('_', '-')}={settings[name]:g}"] if settings.get(name) is not None else []
    for number, metres in (settings.get("heights") or {}).items():
        parts.append(f"--height={metres:g}" if int(number) == 0 else f"--height={number}={metres:g}")
    for entry in take.people:
        parts += [f"--click={entry['id']}:{frame},{x:g},{y:g}{'' if positive else ',-'}" for frame, x, y, positive in entry["prompts"].get("clicks", [])]
        parts += [f"--box={entry['id']}:{frame},{','.join(f'{v:g}' for v in box)}" for frame, *box in entry["prompts"].get("boxes", [])]
    parts += [f"--start={clip['start']}"] if clip["start"] else []
    parts += [f"--end={clip['end']}"] if clip["end"] < clip["frame_count"] else []
    parts += [f"--step={clip['step']}"] if clip["step"] > 1 else []
    return shlex.join(parts)


def _data(take: Take, people: list[PersonReport]) -> str:
    """What the timelines' readout shows, by bins, as JSON that may stand in a script element."""
    bins = Bins(take.samples)
    single = bins.count == bins.samples
    entries = {}
    for person in (person for person in people if not person.missing):
        curves = []
        for curve in person.curves:
            low, high = ([rounded(value) for value in part(curve.values)] for part in (bins.low, bins.high))
            curves.append({"title": curve.title, "unit": unit_text(curve.unit), "low": low, **({} if single else {"high": high})})
        entry = {"curves": curves, "state": "".join(str(int(s)) for s in bins.state(person.state))}
        for name, flags in (("contact", person.contact), ("read", person.read)):
            if flags is not None:
                entry[name] = "".join(f"{sum(bool(flag) << lane for lane, flag in enumerate(row)):x}" for row in bins.any(flags))
        entries[str(person.id)] = entry
    data = {"start": take.frames.start, "step": take.frames.step, "count": take.samples, "bins": bins.count, "fps": take.clip["fps"][0] / take.clip["fps"][1],
            "people": entries}
    return json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
