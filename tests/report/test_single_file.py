"""The atlas as one file: everything within it, nothing requested, no name that becomes markup."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
import shutil
from pathlib import Path

import atlas_content as made
import pictures_content
import pytest
from markupsafe import escape

from chromium import dom_of
from conftest import command
from hostile_names import Structure, hostile_names
from transferscope.errors import OutputError
from transferscope.report.pages.atlas import write_atlas
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.site import script_json
from transferscope.report.single_file import SingleFile, write_single_file


@pytest.fixture(scope="module")
def atlas(made_atlas: tuple[AtlasContent, Path]) -> Path:
    return made_atlas[1]


@pytest.fixture(scope="module")
def units(atlas: Path) -> list[str]:
    return [f"units/{file.name}" for file in sorted((atlas / "units").iterdir())]


@pytest.fixture(scope="module")
def whole(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    file = tmp_path_factory.mktemp("file") / "atlas.html"
    assert write_single_file(atlas, file).left_out == ()
    return file.read_text(encoding="utf-8")


def templates(page: str) -> dict[str, str]:
    found = re.findall(r'<template data-page="([^"]*)"[^>]*>(.*?)</template>', page, re.DOTALL)
    return dict(found)


def test_every_page_is_in_it_and_every_reference_leads_into_it(atlas, whole):
    pages = templates(whole)
    there = {file.relative_to(atlas).as_posix() for file in atlas.rglob("*.html")}
    assert set(pages) == there | {"left-out"}
    table = re.search(r'id="pictures" data-mark="([^"]*)">(.*?)</script>', whole, re.DOTALL)
    mark, pictures = table[1], json.loads(table[2])
    assert len(pictures) > 20
    assert all(one.startswith("data:image/") for one in pictures)
    used = set()
    for tag, name, value in Structure(whole).values:
        if name in ("src", "poster", "srcset") or (name == "href" and tag in ("image", "use")):
            assert value.startswith((mark, "#")), f"{tag} {name}={value}"
        if value.startswith(mark) and name != "data-mark":
            used.add(int(value[len(mark) : -1]))
        if tag == "a" and name == "href" and value.startswith("#"):
            page = value[1:].split("#")[0]
            assert page in pages or f'id="{page}"' in whole, value
        elif tag == "a" and name == "href":
            assert value.startswith(("https://", mark)), value
    assert used == set(range(len(pictures)))
    data = base64.b64decode(pictures[0].partition(",")[2])
    assert data in {file.read_bytes() for file in atlas.rglob("*") if file.is_file()}


def test_its_policy_permits_its_own_scripts_alone(whole):
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', whole)[1]
    assert "default-src 'none'; img-src data:;" in policy
    for part in ("'self'", "file:", "http", "unsafe-eval", "script-src 'unsafe-inline'"):
        assert part not in policy
    permitted = set(re.findall(r"'sha256-([^']*)'", policy))
    scripts = re.findall(r"<script(?: type=\"text/plain\"[^>]*)?>(.*?)</script>", whole, re.DOTALL)
    assert len(scripts) == 3
    for text in scripts:
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in permitted
    assert len(permitted) == 3
    assert '<link rel="stylesheet"' not in whole
    assert not re.search(r"<script[^>]* src=", whole)


def test_the_least_learned_channels_are_left_out_where_not_all_fit(atlas, units, tmp_path):
    file = tmp_path / "atlas.html"
    everything = write_single_file(atlas, file, order=units)
    assert everything.left_out == ()
    limit = everything.size + 100_000 - (atlas / units[-1]).stat().st_size // 2
    fewer = write_single_file(atlas, file, order=units, limit=limit)
    assert fewer.left_out == tuple(units[-len(fewer.left_out) :])
    assert fewer.size == file.stat().st_size <= limit
    assert "pages of channels were left out" in fewer.sentence
    page = file.read_text(encoding="utf-8")
    assert set(templates(page)) >= set(units) - set(fewer.left_out)
    assert not set(templates(page)) & set(fewer.left_out)
    for name in fewer.left_out:
        assert f"<li>{name}</li>" in templates(page)["left-out"]
    before = file.read_bytes()
    with pytest.raises(OutputError, match="--no-pictures"):
        write_single_file(atlas, file, order=units, limit=50_000)
    assert file.read_bytes() == before, "what was there is left"


def test_no_picture_of_ones_own_is_in_it_where_the_atlas_has_none(tmp_path, whole, undrawn):
    content = made.content(tmp_path / "pictures")
    folder = write_atlas(content, tmp_path / "out", pictures=False).parent
    written = write_single_file(folder, tmp_path / "atlas.html")
    page = written.file.read_text(encoding="utf-8")
    fewer, all_ = (
        set(json.loads(re.search(r'id="pictures"[^>]*>(.*?)</script>', text, re.DOTALL)[1]))
        for text in (page, whole)
    )
    own = {file.read_bytes() for file in folder.rglob("images/pictures/*")}
    assert not own, "the atlas has none itself"
    assert len(fewer) < len(all_)


def hostile(content, names):
    """The content with those names for classes, as many as it has."""
    renamed = dict(zip(content.classes, names, strict=False))
    predictions = dataclasses.replace(
        content.predictions, classes=tuple(renamed[one] for one in content.predictions.classes)
    )
    evaluation = content.evaluation
    evaluation = dataclasses.replace(
        evaluation, per_class={renamed[k]: v for k, v in evaluation.per_class.items()}
    )
    return dataclasses.replace(
        content,
        title=names[0],
        classes=tuple(renamed[one] for one in content.classes),
        predictions=predictions,
        evaluation=evaluation,
        evaluation_base=None,
        pictures=pictures_content.shown(
            content.data_root, content.predictions.paths, list(renamed.values())
        ),
        ideals={},
        comparison=None,
        renders={},
        explanations=(),
        inspection=None,
        preview=None,
        card=None,
        study=None,
        others=(),
        robustness=None,
        strips=None,
        history=[],
    )


def test_no_name_makes_an_element(tmp_path, undrawn):
    content = made.content(tmp_path / "pictures")
    tokens = [f"qxz{n}q" for n in range(len(content.classes))]
    folder = write_atlas(hostile(content, tokens), tmp_path / "atlas").parent
    texts = {
        file: file.read_text(encoding="utf-8")
        for file in folder.rglob("*")
        if file.suffix in (".html", ".js")
    }
    assert all(any(token in text for text in texts.values()) for token in tokens)

    def shape(names: list[str], escaped=escape) -> list[tuple[str, ...]]:
        """Of the file with these names where the tokens are, as an atlas would write them."""
        for file, text in texts.items():
            written = script_json if file.suffix == ".js" else escaped
            for token, name in zip(tokens, names, strict=True):
                said = str(written(name))
                text = text.replace(token, said.strip('"') if file.suffix == ".js" else said)
            file.write_bytes(text.encode("utf-8", "replace"))
        return Structure(write_single_file(folder, tmp_path / "a.html").file.read_text()).elements

    harmless = shape(tokens)
    assert len(harmless) > 200
    together = ["|".join(hostile_names()[at : at + 5]) for at in range(0, 500, 5)]
    for at in range(0, len(together), len(tokens)):
        assert shape(together[at : at + len(tokens)]) == harmless
    assert shape(together[: len(tokens)], str) != harmless, "the control: markup would be seen"


def test_the_command_writes_it_and_refuses_other_names(tmp_path, monkeypatch):
    done = command("atlas", tmp_path, "--single-file", tmp_path / "atlas" / "one.html")
    assert done.exit_code == 2
    assert "give it a place beside that" in done.stderr
    done = command("atlas", tmp_path, "--single-file", tmp_path / "atlas.pdf")
    assert done.exit_code == 2
    assert "ends in .html" in done.stderr
    assert SingleFile(Path("a"), 1_500_000).sentence == "1.5 MB"


@pytest.fixture(scope="module")
def probed(atlas: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file, with a script of the atlas that tells what a reader would see."""
    copy = tmp_path_factory.mktemp("probed")
    shutil.copytree(atlas, copy / "atlas")
    script = copy / "atlas/assets/atlas.js"
    probe = """
    window.addEventListener("load", async function () {
      const told = document.documentElement.dataset;
      const wait = ms => new Promise(done => setTimeout(done, ms));
      const images = Array.from(document.querySelectorAll("main img"));
      images.forEach(one => { one.loading = "eager"; });
      // Loaded, not decoded: virtual time waits for loads, and is over before a busy machine has decoded.
      await Promise.all(images.map(one => one.complete ? null : new Promise(
        done => { one.onload = one.onerror = done; })));
      told.images = images.length;
      told.broken = images.filter(one => !one.naturalWidth).length;
      told.requests = performance.getEntriesByType("resource")
        .filter(one => !one.name.startsWith("data:")).length;
      document.addEventListener("securitypolicyviolation",
        event => { told.policy = event.effectiveDirective; });
      const foreign = new Image();
      foreign.src = "http://127.0.0.1:9/x.png";
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key: "/", bubbles: true }));
      const wanted = document.getElementById("wanted");
      if (wanted) {
        wanted.value = "4.2 11";
        wanted.dispatchEvent(new Event("input"));
        await wait(100);
        told.hits = Array.from(document.querySelectorAll("#hits a"))
          .map(one => one.getAttribute("href")).join(" ");
      }
      await wait(100);
    });"""
    script.write_text(script.read_text(encoding="utf-8") + probe, encoding="utf-8")
    return write_single_file(copy / "atlas", copy / "atlas 猫.html").file


@pytest.mark.parametrize(
    "place", ["", "#units/blocks-4-2-1.html", "#layers/blocks-4-2.html#channel-11"]
)
def test_a_browser_opens_it_at_any_page(probed: Path, tmp_path: Path, place: str):
    dom = dom_of(probed.as_uri() + place, tmp_path)
    html = re.search(r"<html[^>]*>", dom)[0]
    assert 'data-atlas="ready"' in html
    assert int(re.search(r'data-images="(\d+)"', html)[1]) > 2
    assert 'data-broken="0"' in html
    assert 'data-requests="0"' in html
    assert 'data-policy="img-src"' in html, "it may fetch from elsewhere"
    assert "layers/blocks-4-2.html#channel-11" in html
    title = re.search(r"<title>(.*?)</title>", dom)[1]
    assert title.startswith(("blocks.4.2 1 ", "blocks.4.2")) == bool(place)
