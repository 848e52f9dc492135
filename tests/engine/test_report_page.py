# SPDX-License-Identifier: Apache-2.0
"""The report in a real browser: no errors, no network, nothing cut off, and its readout follows mouse, keys and links. Skips where there is none."""

import os

import cv2
import numpy as np
import pytest

if os.name == "nt":
    pytest.skip("the browser is spoken to over POSIX pipes", allow_module_level=True)

from body4d_engine.exports import export

from .chromium import Chromium, find_chromium
from .reported import NASTY, busy_take

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="needs Chromium (set BODY4D_CHROMIUM to one)")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("Bericht mit Ä und Leerzeichen")
    take = busy_take(folder / "a.take", samples=90, names={1: NASTY})
    list(export(take, "report", folder / "a_report.html"))
    return (folder / "a_report.html").as_uri()


@pytest.fixture(scope="module")
def browser():
    with Chromium(find_chromium()) as browser:
        yield browser


def decoded(data: bytes) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)


@pytest.mark.parametrize("width", [1280, 420])
@pytest.mark.parametrize("dark", [False, True])
def test_light_and_dark_wide_and_narrow_without_errors_or_network(browser, page, width, dark):
    browser.problems.clear()
    browser.requests.clear()
    browser.open(page, width, dark=dark)
    assert browser.evaluate("document.documentElement.scrollWidth") <= width
    assert browser.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
    picture = decoded(browser.screenshot())
    assert picture.shape[1] == width and (np.median(picture) < 60 if dark else np.median(picture) > 200) and picture.std() > 5
    assert browser.problems == []
    assert {address for address in browser.requests if not address.startswith("data:")} <= {page, "about:blank"}


def test_the_readout_follows_the_mouse_the_keys_and_links(browser, page):
    browser.open(page, 1280)
    browser.evaluate("document.querySelector('.timeline').scrollIntoView()")
    x, y, width = browser.evaluate("(() => { const r = document.querySelector('.plots').getBoundingClientRect(); return [r.x, r.y + 40, r.width]; })()")
    readout = "document.querySelector('.readout').textContent"
    browser.move_mouse(x + width * 31.5 / 90, y)
    text = browser.evaluate(readout)
    assert text.startswith("frame 31 · 1.03 s · visible · confidence 0.1 · jitter") and "down: left heel, left toe, right heel, right toe" in text
    assert text.endswith("read: left hand, face")
    browser.evaluate("document.querySelector('.timeline').focus()")
    browser.press("ArrowRight")
    assert browser.evaluate(readout).startswith("frame 32 ")
    browser.press("End")
    assert browser.evaluate(readout).startswith("frame 89 ")
    browser.evaluate("document.querySelector('a[href=\"#p2-60\"]').click()")
    second = "document.querySelectorAll('.readout')[1].textContent"
    assert browser.evaluate(f"new Promise(done => setTimeout(() => done({second}), 100))").startswith("frame 60 · 2.00 s · occluded")


def test_a_link_from_elsewhere_opens_at_its_frame(browser, page):
    browser.open(page + "#p1-60", 1280)
    assert "frame 60 " in browser.evaluate("document.querySelector('.readout').textContent")
    assert browser.evaluate("scrollY") > 0 and browser.evaluate("document.querySelector('.cursor').hidden") is False


def test_it_prints(browser, page):
    browser.open(page, 1280, dark=True)
    assert browser.pdf().startswith(b"%PDF-") and browser.problems == []
