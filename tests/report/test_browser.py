"""A real browser opens the atlas from the disk: the script runs and something is to be seen."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import atlas_content as made
import numpy as np
import pytest
from PIL import Image

from transferscope.report.pages.atlas import write_atlas
from transferscope.report.pages.content import AtlasContent

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@pytest.fixture(scope="module")
def browser() -> str:
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None and os.environ.get("CI"):
        pytest.fail("no chromium on this CI machine; install it ('apt-get install chromium')")
    if found is None:
        pytest.skip("no chromium on this machine ('apt-get install chromium' brings it)")
    return found


@pytest.fixture(scope="module")
def atlas(made_atlas: tuple[AtlasContent, Path]) -> Path:
    return made_atlas[1]


def run(browser: str, profile: Path, *arguments: str) -> str:
    # fmt: off
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        "--hide-scrollbars", "--force-device-scale-factor=1", f"--user-data-dir={profile}",
        *arguments,
    ]
    # fmt: on
    done = subprocess.run(command, capture_output=True, timeout=120, check=True)
    return done.stdout.decode("utf-8")


def test_without_its_script_the_attribute_is_missing(
    browser: str, atlas: Path, tmp_path: Path
) -> None:
    copy = shutil.copytree(atlas, tmp_path / "copy")
    (copy / "assets/atlas.js").write_text("throw new Error('broken')")
    dom = run(browser, tmp_path / "profile", "--dump-dom", (copy / "index.html").as_uri())
    assert "data-atlas" not in dom


def probed(atlas: Path, copy: Path, *, before: str = "", after: str = "") -> Path:
    """A copy of the atlas whose script has more before and after it."""
    shutil.copytree(atlas, copy)
    script = copy / "assets/atlas.js"
    script.write_text(before + script.read_text(encoding="utf-8") + after, encoding="utf-8")
    return copy


PAGES = (
    "index.html",
    "layers/blocks-4-2.html",
    "units/blocks-4-2-1.html",
    "evaluation.html",
    "card.html",
    "data.html",
    "map.html",
    "classes/1.html",
    "pictures.html",
    "pictures/0.html",
)


def test_the_script_runs_without_an_error(browser: str, atlas: Path, tmp_path: Path) -> None:
    """Each page leads to the next and hands on, by the window's name, what was found so far."""
    copy = probed(
        atlas,
        tmp_path / "copy",
        before=f"""
        window.addEventListener("load", function () {{
          const pages = {json.dumps([(tmp_path / "copy" / name).as_uri() for name in PAGES])};
          const at = pages.indexOf(location.href);
          const ready = document.documentElement.dataset.atlas === "ready";
          const seen = (at ? window.name.split(" ") : []).concat(
            ready && !document.getElementById("theme").hidden ? "ready" : "broken");
          window.name = seen.join(" ");
          document.documentElement.dataset.seen = window.name;
          if (at + 1 < pages.length) location.href = pages[at + 1];
        }});""",
    )
    dom = run(
        browser,
        tmp_path / "profile",
        "--virtual-time-budget=8000",
        "--dump-dom",
        (copy / PAGES[0]).as_uri(),
    )
    found = re.findall(r'data-seen="([^"]*)"', dom)[0].split(" ")
    assert dict(zip(PAGES, found, strict=True)) == dict.fromkeys(PAGES, "ready")


@pytest.mark.usefixtures("undrawn")
def test_channels_and_drawings_sort_and_filter_and_the_theme_turns(
    browser: str, tmp_path: Path
) -> None:
    content = made.content(tmp_path / "pictures")
    record = content.comparison
    assert record is not None
    more = made.channel(
        "blocks.4.2", 6, ("class 0/片 0 #%.png",)
    )  # tools stand above more than six drawings
    atlas = write_atlas(
        dataclasses.replace(
            content, comparison=dataclasses.replace(record, drawings=(*record.drawings, more))
        ),
        tmp_path / "atlas",
    ).parent
    copy = probed(
        atlas,
        tmp_path / "copy",
        after="""
        document.addEventListener("DOMContentLoaded", function () {
          for (const [name, key] of [["grid", "similarity"], ["channels", "moved"]]) {
            const tools = document.querySelector(".tools[data-of=" + name + "]");
            for (const [what, value] of [["order", key], ["found", "learned"]]) {
              const select = tools.querySelector("[name=" + what + "]");
              select.value = value;
              select.dispatchEvent(new Event("change"));
            }
            document.documentElement.dataset[name] =
              Array.from(document.getElementById(name).children)
              .filter(item => !item.hidden).map(item => item.dataset.index).join(" ");
          }
          document.getElementById("theme").click();
        });""",
    )
    page = (copy / "layers/blocks-4-2.html").as_uri()
    dom = run(browser, tmp_path / "profile", "--dump-dom", page)
    assert 'data-grid="1 3 5"' in dom
    assert 'data-channels="23 21 19 17 15 13 11 9 7 5 3 1"' in dom
    assert 'data-theme="dark"' in dom or 'data-theme="light"' in dom


def test_the_script_works_where_storage_is_denied(
    browser: str, atlas: Path, tmp_path: Path
) -> None:
    copy = probed(
        atlas,
        tmp_path / "copy",
        before="""Object.defineProperty(window, "localStorage", {
          get() { throw new DOMException("denied", "SecurityError"); } });""",
        after="""
        document.addEventListener("DOMContentLoaded", function () {
          document.getElementById("theme").click();
        });""",
    )
    dom = run(browser, tmp_path / "profile", "--dump-dom", (copy / "index.html").as_uri())
    assert 'data-atlas="ready"' in dom
    assert "data-theme=" in dom


def test_the_arrow_keys_lead_to_the_next_channel(browser: str, atlas: Path, tmp_path: Path) -> None:
    copy = probed(
        atlas,
        tmp_path / "copy",
        after="""
        window.addEventListener("load", function () {
          if (location.href.includes("blocks-4-2-1.html")) {
            const key = new KeyboardEvent("keydown", { key: "ArrowRight", bubbles: true });
            document.body.dispatchEvent(key);
          }
        });""",
    )
    page = (copy / "units/blocks-4-2-1.html").as_uri()
    dom = run(browser, tmp_path / "profile", "--virtual-time-budget=3000", "--dump-dom", page)
    assert "<title>blocks.4.2 2 " in dom


@pytest.mark.usefixtures("undrawn")
def test_of_many_channels_those_in_sight_are_in_the_document(browser: str, tmp_path: Path) -> None:
    content = made.content(tmp_path / "pictures")
    record = content.comparison
    assert record is not None
    name, count = "blocks.4.2", 2048
    known = record.layers[1]
    drawn = tuple(made.channel(name, index, record.paths) for index in range(100))
    many = dataclasses.replace(
        record,
        layers=(dataclasses.replace(known, channels=count),),
        rows=made.rows(name, count, drawn=(), seed=5),
        drawings=drawn,
    )
    bare = dataclasses.replace(content, comparison=many, renders={}, evaluation=None)
    bare = dataclasses.replace(bare, predictions=None, explanations=(), inspection=None, card=None)
    atlas = write_atlas(bare, tmp_path / "atlas").parent
    copy = probed(
        atlas,
        tmp_path / "copy",
        after="""
        window.addEventListener("load", async function () {
          const told = document.documentElement.dataset;
          const wait = ms => new Promise(done => setTimeout(done, ms));
          const live = id => document.getElementById(id).querySelectorAll("*").length;
          const rows = () => Array.from(document.getElementById("channels").children)
            .filter(row => row.dataset.index).map(row => Number(row.dataset.index));
          await wait(100);
          told.there = document.getElementById("channel-1500") !== null;
          const box = document.getElementById("channels").closest(".scroll");
          const high = box.scrollHeight;
          let most = 0;
          for (let at = 0; at < 20; at++) {
            box.scrollTop = at * high / 20;
            scrollTo(0, at * document.body.scrollHeight / 20);
            await wait(30);
            most = Math.max(most, live("channels"), live("grid"));
          }
          told.most = most;
          told.steady = Math.abs(box.scrollHeight - high) < 40;
          box.scrollTop = box.scrollHeight;
          await wait(60);
          told.last = rows().at(-1);
          const sort = document.querySelector('.tools[data-of="channels"] select');
          sort.value = "index";
          sort.dispatchEvent(new Event("change"));
          box.scrollTop = box.scrollHeight;
          await wait(60);
          told.sorted = rows().at(-1);
          window.dispatchEvent(new Event("beforeprint"));
          told.printed = rows().length;
        });""",
    )
    page = (copy / "layers/blocks-4-2.html").as_uri() + "#channel-1500"
    dom = run(browser, tmp_path / "profile", "--virtual-time-budget=8000", "--dump-dom", page)
    found = dict(re.findall(r'data-(there|most|steady|last|sorted|printed)="([^"]*)"', dom))
    assert found["there"] == "true", "an address leads to a row that is not in the document"
    assert 0 < int(found["most"]) <= 300
    assert found["steady"] == "true"
    assert found["sorted"] == str(count - 1)
    assert found["last"] != found["sorted"]
    assert found["printed"] == str(count)


def test_what_a_list_is_set_to_stands_in_the_address_and_is_read_from_it(
    browser: str, atlas: Path, tmp_path: Path
) -> None:
    copy = probed(
        atlas,
        tmp_path / "copy",
        after="""
        window.addEventListener("load", async function () {
          const told = document.documentElement.dataset;
          const tools = document.querySelector('.tools[data-of="channels"]');
          const of = name => tools.querySelector("[name=" + name + "]");
          const rows = () => Array.from(document.getElementById("channels").children)
            .filter(row => row.dataset.index && !row.hidden).map(row => row.dataset.index).join(" ");
          const set = (name, value) => {
            of(name).value = value;
            of(name).dispatchEvent(new Event("change"));
          };
          told.first = rows();
          told.count = tools.querySelector("output").textContent;
          told.set = of("order").value + " " + of("found").value;
          set("found", "");
          set("status", "below_exemplar");
          told.below = rows();
          told.address = location.hash;
          set("status", "drawn");
          told.drawn = rows();
          of("status").focus();
          told.focused = document.activeElement === of("status");
          location.hash = "#channel-20";
          await new Promise(done => setTimeout(done, 200));
          told.all = rows().split(" ").length;
          set("order", "learned");
          told.plain = location.hash;
        });""",
    )
    page = (copy / "layers/blocks-4-2.html").as_uri()
    hash_ = "#channels-order=index&channels-found=matters&grid-order=nonsense"
    dom = run(
        browser, tmp_path / "profile", "--virtual-time-budget=4000", "--dump-dom", page + hash_
    )
    names = "first|count|set|below|address|drawn|focused|all|plain"
    found = dict(re.findall(rf' data-({names})="([^"]*)"', re.findall(r"<html[^>]*>", dom)[0]))
    assert found == {
        "first": "2 5 8 11",
        "count": "4 of 24",
        "set": "index matters",
        "below": "3",
        "address": "#channels-order=index&amp;grid-order=nonsense&amp;channels-status=below_exemplar",
        "drawn": "0 1 2 3 4 5",
        "focused": "true",
        "all": "24",
        "plain": "",
    }


def test_a_dot_of_the_map_leads_to_its_pictures_page(
    browser: str, atlas: Path, tmp_path: Path
) -> None:
    copy = probed(
        atlas,
        tmp_path / "copy",
        after="""
        window.addEventListener("load", function () {
          if (!location.href.includes("map.html")) return;
          const named = document.querySelector(".map-name");
          window.name = [named.querySelector("a").getAttribute("href"),
            document.querySelectorAll("circle.here").length].join(" ");
          const dot = document.querySelector('circle[data-i="4"]');
          dot.dispatchEvent(new PointerEvent("click", { bubbles: true, pointerType: "touch" }));
          window.name += " " + named.querySelector("a").getAttribute("href");
          const bare = document.querySelector('circle[data-i="3"]');
          bare.dispatchEvent(new PointerEvent("click", { bubbles: true, pointerType: "mouse" }));
          window.name += " " + named.querySelectorAll("a").length;
          dot.dispatchEvent(new PointerEvent("click", { bubbles: true, pointerType: "mouse" }));
        });
        document.documentElement.dataset.seen = window.name;""",
    )
    page = (copy / "map.html").as_uri() + "#dot-1"
    dom = run(browser, tmp_path / "profile", "--virtual-time-budget=4000", "--dump-dom", page)
    assert re.findall(r'data-seen="([^"]*)"', dom) == ["pictures/0.html 2 pictures/2.html 0"]
    assert re.search(r"<title>class 1/片 4", dom), "a press with the mouse opens the page"


def test_search_blink_and_keys(browser: str, atlas: Path, tmp_path: Path) -> None:
    copy = probed(
        atlas,
        tmp_path / "copy",
        after="""
        window.addEventListener("load", async function () {
          const told = document.documentElement.dataset;
          const press = key => document.body.dispatchEvent(
            new KeyboardEvent("keydown", { key, bubbles: true }));
          const wait = ms => new Promise(done => setTimeout(done, ms));
          const base = document.querySelector("#pair .side.large img"), own = base.src;
          press("b");
          told.blinked = base.src !== own && base.src.includes("tuned");
          press("b");
          told.restored = base.src === own;
          press("?");
          told.keys = document.getElementById("keys").open;
          document.getElementById("keys").close();
          press("/");
          await wait(300);
          const wanted = document.getElementById("wanted");
          wanted.value = "4.2 11";
          wanted.dispatchEvent(new Event("input"));
          told.hits = Array.from(document.querySelectorAll("#hits a"))
            .map(one => one.textContent + "=" + one.getAttribute("href")).join(" ");
          wanted.value = "猫";
          wanted.dispatchEvent(new Event("input"));
          told.named = document.querySelectorAll("#hits a").length;
          told.elements = document.querySelectorAll("#hits b").length;
          const foreign = new Image();
          foreign.onerror = () => { told.foreign = "refused"; };
          document.addEventListener("securitypolicyviolation",
            event => { told.policy = event.effectiveDirective; });
          foreign.src = "http://127.0.0.1:9/x.png";
          await wait(300);
        });""",
    )
    page = (copy / "units/blocks-4-2-1.html").as_uri()
    dom = run(browser, tmp_path / "profile", "--virtual-time-budget=5000", "--dump-dom", page)
    assert 'data-blinked="true"' in dom
    assert 'data-restored="true"' in dom
    assert 'data-keys="true"' in dom
    assert 'data-hits="blocks.4.2 11=../layers/blocks-4-2.html#channel-11"' in dom
    assert 'data-named="1"' in dom  # a class, whose name has tags that make no elements
    assert 'data-elements="0"' in dom
    assert 'data-policy="img-src"' in dom, "the page may fetch from elsewhere"


@pytest.mark.parametrize(("width", "height"), [(1280, 900), (520, 2400)])
def test_the_front_page_is_not_blank(
    browser: str, atlas: Path, tmp_path: Path, width: int, height: int
) -> None:
    shot = tmp_path / "shot.png"
    run(
        browser,
        tmp_path / "profile",
        f"--screenshot={shot}",
        f"--window-size={width},{height}",
        (atlas / "index.html").as_uri(),
    )
    with Image.open(shot) as picture:
        pixels = np.asarray(picture.convert("RGB"), dtype=int)
    assert pixels.shape[1] == width
    ground = pixels[-1, 0]
    inked = (np.abs(pixels - ground).sum(axis=-1) > 60).mean()
    colourful = (np.ptp(pixels, axis=-1) > 40).mean()
    assert 0.01 < inked < 0.9
    assert colourful > 0.005
