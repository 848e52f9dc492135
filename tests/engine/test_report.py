# SPDX-License-Identifier: Apache-2.0
"""The report beside a result: complete, self-contained, well-formed, bounded, and right about where to look."""

import base64
import json
import re
import shlex
from fractions import Fraction
from html.parser import HTMLParser

import cv2
import numpy as np
import pytest

from body4d_engine.cli import main, parser
from body4d_engine.clip import open_clip
from body4d_engine.events import Notice, Progress
from body4d_engine.exports import export
from body4d_engine.exports.report import plots_folder, samples_of
from body4d_engine.exports.report.content import people_of
from body4d_engine.exports.report.drawing import svg
from body4d_engine.exports.report.page import command
from body4d_engine.exports.report.plots import BINS, Bins, nice, number_text, panels, ruler
from body4d_engine.exports.report.stills import ENOUGH_CROPS, choose
from body4d_engine.take import State, Take

from .bodies import ball_take
from .make_clips import make_clip
from .reported import NASTY, busy_take

VOID = {"meta", "img", "br", "link", "hr", "input"}
IMPLIED = {"th", "td", "tr"}  # whose end may be left out


class Page(HTMLParser):
    """Text, tags and addresses of a document; fails where elements are not closed in order or an id is given twice."""

    def __init__(self, path):
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.open, self.tags, self.words, self.ids = [], [], [], []
        self.feed(self.source)
        self.close()
        assert not self.open
        assert len(set(self.ids)) == len(self.ids)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.ids += [value for name, value in attributes if name == "id"]
        if tag not in VOID and not tag == "path":
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        while self.open[-1] != tag and self.open[-1] in IMPLIED:
            self.open.pop()
        assert self.open.pop() == tag, self.getpos()

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("script", "style"):
            self.words.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]

    def data(self) -> dict:
        return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', self.source, re.DOTALL)[1])


def made(take, path, **options) -> Page:
    list(export(take, "report", path, **options))
    return Page(path)


@pytest.fixture(scope="module")
def busy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    film = make_clip(folder / "film.mp4", count=90, size=(96, 64), fps=Fraction(30))
    with open_clip(film) as clip:
        facts = {**clip.describe(), "shots": [0], "proxy": "proxy.mp4", "proxy_reasons": ["it is <odd>"]}
    take = busy_take(folder / "busy.take", clip=facts, names={1: NASTY, 2: "Größe"})
    return take, made(take, folder / "busy_report.html"), folder


def test_everyone_and_everything_said_is_there(busy):
    take, page, _ = busy
    for entry in take.people:
        assert page.text.count(entry["name"]) >= 3 and f"p{entry['id']}" in page.ids
    for notice in take.notices():
        assert " ".join(notice["message"].split()) in page.text
    for words in ("96 × 64 px at 30 frames", "80 px", "assumed: 0.8 x the diagonal", "assumed: of average size", "proxy.mp4 stands in", "it is <odd>", "30–32",
                  "1–45", "jitter", "mm/frame", "10 m/s³", "Contact", "python scripts/convert.py", "--height=1.8", "numpy", "<2>"):
        assert words in page.text, words
    assert not re.search(r"\bnan\b", page.text, re.IGNORECASE)


def test_it_needs_nothing_from_elsewhere_and_runs_nothing_foreign(busy):
    _, page, _ = busy
    addresses = [value for _, attributes in page.tags for name, value in attributes.items() if name in ("src", "href", "srcset", "data", "action")]
    assert addresses and all(value.startswith(("data:image/jpeg;base64,", "#p")) for value in addresses)
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", page.source))
    assert {tag for tag, _ in page.tags}.isdisjoint({"link", "iframe", "object", "embed"}) and len(page.all("script")) == 2
    assert "alert(1)" not in "".join(re.findall(r"<script.*?</script>", page.source, re.DOTALL))
    assert "default-src 'none'" in page.source


def test_pictures_decode_and_have_words(busy):
    take, page, folder = busy
    images = page.all("img")
    assert len(images) > 5
    for image in images:
        picture = cv2.imdecode(np.frombuffer(base64.b64decode(image["src"].split(",", 1)[1]), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[:2] == (int(image["height"]), int(image["width"])) and image["alt"]
    for drawing in page.all("svg"):
        assert drawing["role"] == "img" and drawing["aria-label"]
    plots = sorted(plots_folder(folder / "busy_report.html").iterdir())
    assert [path.name for path in plots] == ["person_1.png", "person_2.png"] and plots[0].parent.name == "busy_plots"
    for path in plots:
        picture = cv2.imdecode(np.frombuffer(path.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape[1] == 1600 and picture.std() > 10


def test_links_lead_to_people_and_frames_that_exist(busy):
    take, page, _ = busy
    links = [a["href"] for a in page.all("a")]
    assert len(links) > 10
    for link in links:
        person, _, frame = link.removeprefix("#p").partition("-")
        assert f"p{person}" in page.ids and (not frame or int(frame) in take.frames)


def test_doubts_are_where_they_were_put(busy):
    take, page, _ = busy
    found = {}
    for doubt in people_of(take)[0].doubts:
        found.setdefault(doubt.kind, []).append((doubt.begin, doubt.stop))
    assert found["low confidence"] == [(30, 33)] and found["hidden"] == [(60, 63)]
    assert all(begin <= 40 < stop for begin, stop in found["sudden jump"]) and all(begin <= 22 < stop for begin, stop in found["sliding foot"])
    assert "30–32" in re.search(r"low confidence .*?sudden jump", page.text)[0]
    shown = {still.caption for still in choose(people_of(take), [], take.frames, 30) if still.person}
    assert {"most confident", "hidden", "low confidence", "sudden jump", "sliding foot"} <= shown


def test_the_readout_holds_what_the_take_holds(busy):
    take, page, _ = busy
    data = page.data()
    assert (data["count"], data["bins"], data["start"], data["step"]) == (90, 90, 0, 1)
    person = data["people"]["1"]
    assert person["state"] == "".join(str(int(s)) for s in take.read("people/1", "state"))
    curves = {curve["title"]: curve for curve in person["curves"]}
    known = [(low, value) for low, value in zip(curves["Confidence"]["low"], take.read("people/1", "confidence")) if low is not None]
    assert len(known) == 89 and all(abs(low - value) < 0.002 for low, value in known)
    assert person["contact"] == "0" * 9 + "f" * 54 + "0" + "f" * 26 and "high" not in curves["Confidence"]
    assert person["read"] == "1" * 10 + "5" * 35 + "6" * 18 + "0" + "6" * 26  # left hand 1, right hand 2, face 4


def test_events_are_told_in_the_order_of_frames(busy):
    told = busy[1].text
    assert told.index("The focal length is assumed &") < told.index("It is <crowded>") < told.index("were exchanged.")


def test_long_takes_and_many_people_stay_small_and_keep_their_spikes(tmp_path):
    take = busy_take(tmp_path / "long.take", samples=18_000)
    page = made(take, tmp_path / "long_report.html")
    assert len(page.source) < 1_500_000
    data = page.data()
    assert data["bins"] == BINS
    confidence = next(curve for curve in data["people"]["1"]["curves"] if curve["title"] == "Confidence")
    assert min(v for v in confidence["low"] if v is not None) == 0.1 and max(confidence["high"]) > 0.9
    assert {"1", "2", "3"} & set(data["people"]["1"]["state"]) >= {"1", "3"}  # four frames of 18,000 are still there
    crowd = made(busy_take(tmp_path / "crowd.take", samples=60, people=range(1, 21)), tmp_path / "crowd_report.html")
    assert len(crowd.source) < 3_000_000 and len([tag for tag, a in crowd.tags if a.get("class") == "timeline"]) == 20
    assert len(list((tmp_path / "crowd_plots").iterdir())) == 20


@pytest.mark.parametrize("start, step", [(0, 1), (7, 3)])
def test_a_single_sample_and_takes_that_know_little(tmp_path, start, step):
    for samples in (1, 2, 5):
        take = busy_take(tmp_path / f"{samples}.take", samples=max(samples, 30), start=start, step=step) if samples == 5 else \
            ball_take(tmp_path / f"{samples}.take", samples=samples, start=start, step=step)
        page = made(take, tmp_path / f"{samples}_report.html")
        assert f"Frame {take.frames[0]}" in page.text or samples == 5
        assert page.data()["start"] == start


def test_nobody_and_a_person_without_a_body(tmp_path):
    page = made(ball_take(tmp_path / "none.take", people=()), tmp_path / "none_report.html")
    assert "Nobody was found" in page.text
    take = ball_take(tmp_path / "some.take")
    take.describe(people=[*take.people, {"id": 7, "name": "Ghost", "color": [1, 0, 0], "prompts": {}, "height_m": None}])
    page = made(take, tmp_path / "some_report.html")
    assert "Ghost" in page.text and "no body for person 7" in page.text


def test_everyone_absent_everywhere(tmp_path):
    page = made(ball_take(tmp_path / "gone.take", states={1: [State.ABSENT] * 6, 2: [State.ABSENT] * 6}), tmp_path / "gone_report.html")
    assert "absent 6" in page.text


def test_a_second_report_leaves_no_plots_of_people_who_are_gone(tmp_path):
    made(ball_take(tmp_path / "two.take"), tmp_path / "x_report.html")
    (tmp_path / "x_plots" / "person_of_mine.png").write_bytes(b"mine")
    made(ball_take(tmp_path / "one.take", people=(1,)), tmp_path / "x_report.html")
    assert sorted(p.name for p in (tmp_path / "x_plots").iterdir()) == ["person_1.png", "person_of_mine.png"]


def test_the_command_of_the_engine(tmp_path, capsys):
    ball_take(tmp_path / "a.take").close()
    assert main(["export", str(tmp_path / "a.take"), "--layout", "report", "-o", str(tmp_path / "a_report.html")]) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "a_report.html") and Page(tmp_path / "a_report.html").text
    events = list(export(Take.open(tmp_path / "a.take"), "report", tmp_path / "a_report.html"))
    assert [e.code for e in events if isinstance(e, Notice)] == ["no_footage"] and any(isinstance(e, Progress) for e in events)


def test_the_command_to_make_it_again_is_understood(busy):
    take, _, _ = busy
    take.people[0]["prompts"] = {"clicks": [[3, 4.5, 6, True], [3, 1, 2, False]], "boxes": [[5, 1, 2, 30, 40]]}
    words = shlex.split(command(take))
    assert words[:3] == ["python", "scripts/convert.py", take.clip["path"]]
    parsed = parser().parse_args(["run", words[2], "--out", "a.take", *words[3:]])
    assert parsed.click == ["1:3,4.5,6", "1:3,1,2,-"] and parsed.box == ["1:5,1,2,30,40"] and parsed.height == ["1.8"]


def test_bins_and_axes():
    values = np.full(5000, np.nan)
    values[100:4000], values[1234] = 1.0, 50.0
    bins = Bins(5000)
    assert np.nanmax(bins.high(values)) == 50 and bins.count == BINS and np.isnan(bins.mean(values)[[0, -1]]).all()
    assert bins.mean(values)[(bins.edges[:-1] <= 1234).sum() - 1] > 1
    assert [nice(v) for v in (0.9, 1, 4.1, 76, 0, 5431)] == [1, 1, 5, 100, 1, 7500]
    assert [number_text(v) for v in (0.12345, 3.0, 12.34, 123.4, 5431, float("nan"), 0, -2.5)] == ["0.123", "3", "12.3", "123", "5\u202f431", "–", "0", "-2.5"]
    for frames in (range(0, 1), range(3, 5), range(0, 230), range(10, 18000, 7)):
        marks = ruler(frames)
        assert len(marks) <= 9 and all(0 <= x <= 1 for x, _ in marks) and all(frames[0] <= frame <= frames[-1] for _, frame in marks)
    assert samples_of([{"frame": 12, "last_frame": 19, "person": None}, {"frame": 500, "last_frame": None, "person": 1}], 1, range(10, 30, 3)) == [(1, 4)]


def test_both_drawings_come_from_the_same_shapes(busy):
    take, _, _ = busy
    for panel in panels(people_of(take)[0], [(3, 9)], take.frames):
        assert panel.shapes and all(np.isfinite(shape.points).all() and shape.points.min() >= 0 and shape.points.max() <= 1 + 1e-9 for shape in panel.shapes)
        drawn = svg(panel, [0.5], "x")
        assert all(f'class="{shape.role} {shape.kind}"' in drawn for shape in panel.shapes)
    assert len([s for s in choose(people_of(take), take.notices(), take.frames, 30) if s.person == 1]) <= ENOUGH_CROPS
