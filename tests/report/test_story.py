"""The atlas as a reader walks through it, in Chromium: keys, addresses, themes, a telephone, axe's rules."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlparse

import pytest

from transferscope.report.pages.content import AtlasContent

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page, ViewportSize

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
DESK: ViewportSize = {"width": 1280, "height": 900}
PHONE: ViewportSize = {"width": 390, "height": 844}
COLOURFUL = ("index.html", "evaluation.html", "map.html")
GRAVE = ("serious", "critical")
WCAG = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("no chromium on this CI machine; install it ('apt-get install chromium')")
    if found is None:
        pytest.skip("no chromium on this machine ('apt-get install chromium' brings it)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield opened
        opened.close()


@dataclass
class Reader:
    """A page that is being read, and what went wrong on it."""

    page: Page
    home: str
    faults: list[str] = field(default_factory=list)

    def open(self, address: str) -> Page:
        """An address below the atlas."""
        self.page.goto(f"{self.home}/{address}", wait_until="load")
        self.page.wait_for_selector("html[data-atlas=ready]")
        return self.page


@pytest.fixture
def reader(browser: Browser, made_atlas: tuple[AtlasContent, Path]) -> Iterator[Reader]:
    """At a desk. No error and no request to elsewhere may occur, whatever is done."""
    context = browser.new_context(viewport=DESK)
    read = Reader(context.new_page(), made_atlas[1].as_uri())

    def asked(address: str) -> None:
        if not address.startswith((f"{read.home}/", "data:", "blob:")):
            read.faults.append(f"asked for {address}")

    def failed(address: str, why: str) -> None:
        if "ERR_ABORTED" not in why:  # a picture that was still being read when the page was left
            read.faults.append(f"failed: {address}: {why}")

    read.page.on("request", lambda request: asked(request.url))
    read.page.on("requestfailed", lambda request: failed(request.url, str(request.failure)))
    read.page.on("pageerror", lambda error: read.faults.append(f"error: {error}"))
    read.page.on(
        "console", lambda said: read.faults.append(said.text) if said.type == "error" else None
    )
    yield read
    context.close()
    assert read.faults == []


def every_page(atlas: Path) -> list[str]:
    """One page of each folder, and all beside the first one."""
    top = sorted(atlas.glob("*.html"))
    deeper = [
        sorted(one.glob("*.html"))[0]
        for one in sorted(atlas.iterdir())
        if one.is_dir() and any(one.glob("*.html"))
    ]
    return [one.relative_to(atlas).as_posix() for one in (*top, *deeper)]


def grave(page: Page, *rules: str) -> list[str]:
    """What axe finds serious or critical by these rules, or of all of WCAG 2, A and AA."""
    from axe_playwright_python.sync_playwright import Axe

    asked = {"type": "rule", "values": rules} if rules else {"type": "tag", "values": WCAG}
    # "preload" would fetch the style sheets once more.
    options = {"runOnly": asked, "preload": False, "resultTypes": ["violations"]}
    found = Axe().run(page, options=options).response["violations"]
    return [
        f"{one['id']}: {one['help']}: {one['nodes'][0]['html'][:160]} "
        f"({one['nodes'][0].get('failureSummary', '')[:200]})"
        for one in found
        if one["impact"] in GRAVE
    ]


@pytest.mark.parametrize(("scheme", "rules"), [("light", ()), ("dark", ("color-contrast",))])
def test_axe_finds_nothing_serious_on_any_page(reader, made_atlas, scheme, rules):
    """In the dark the colours alone are others."""
    reader.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    found = {}
    pages = every_page(made_atlas[1])
    if scheme == "dark":
        pages = [name for name in pages if "/" in name or name in COLOURFUL]
    for name in pages:
        if faults := grave(reader.open(name), *rules):
            found[name] = faults
    assert found == {}


def test_axe_would_find_a_picture_without_words_and_pale_text(reader):
    page = reader.open("index.html")
    page.evaluate(
        """() => {
          const main = document.querySelector("main");
          main.append(new Image(20, 20));
          const pale = document.createElement("p");
          pale.textContent = "pale";
          pale.style.cssText = "color: #bbb; background: #fff";
          main.append(pale);
        }"""
    )
    ids = {one.split(":")[0] for one in grave(page)}
    assert {"image-alt", "color-contrast"} <= ids


@pytest.mark.parametrize("size", [DESK, PHONE], ids=["desk", "telephone"])
def test_no_page_is_wider_than_the_window(reader, made_atlas, size):
    reader.page.set_viewport_size(size)
    wide = {}
    for name in every_page(made_atlas[1]):
        across = reader.open(name).evaluate("document.documentElement.scrollWidth")
        if across > size["width"]:
            wide[name] = across
    assert wide == {}


def test_the_story_by_keyboard_alone(reader):
    page = reader.open("index.html")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.matches('a, button')"), "focus is to be seen"
    page.keyboard.press("/")
    page.keyboard.type("4.2 11")
    page.wait_for_selector("#hits a")
    page.keyboard.press("Enter")
    page.wait_for_url("**/layers/blocks-4-2.html#channel-11")
    row = page.locator("#channel-11")
    row.wait_for()
    assert row.bounding_box()["y"] < DESK["height"], "the address leads to where the row is seen"
    page.goto(f"{reader.home}/units/blocks-4-2-1.html")
    shown = page.locator("#pair .side.large img").first
    own = shown.evaluate("one => one.src")
    page.keyboard.press("b")
    assert shown.evaluate("one => one.src") != own
    page.keyboard.press("b")
    assert shown.evaluate("one => one.src") == own
    page.keyboard.press("?")
    assert page.locator("#keys").is_visible()
    page.keyboard.press("Escape")
    assert page.locator("#keys").is_hidden()
    page.keyboard.press("ArrowRight")
    page.wait_for_url("**/units/blocks-4-2-2.html")
    page.go_back()
    page.wait_for_url("**/units/blocks-4-2-1.html")


def test_the_theme_is_chosen_and_kept_from_page_to_page(reader):
    reader.page.emulate_media(color_scheme="light")
    page = reader.open("index.html")
    ground = "getComputedStyle(document.body).backgroundColor"
    light = page.evaluate(ground)
    page.locator("#theme").click()
    dark = page.evaluate(ground)
    assert dark != light
    assert reader.open("evaluation.html").evaluate(ground) == dark


def test_every_link_within_the_atlas_leads_somewhere(reader, made_atlas):
    missing = []
    for name in every_page(made_atlas[1]):
        page = reader.open(name)
        links = page.evaluate("Array.from(document.links).map(one => one.href)")
        for link in {one.split("#")[0] for one in links if one.startswith(reader.home)}:
            if not Path(unquote(urlparse(link).path)).is_file():
                missing.append((name, link))
    assert missing == []
