"""The atlas is whole, links to itself alone, and shows every name literally."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import atlas_content as made
import numpy as np
import pictures_content
import pytest
from PIL import Image

from transferscope.comparison.headline import sentences as comparison_sentences
from transferscope.comparison.records import Comparison
from transferscope.comparison.witnesses import WITNESSES
from transferscope.errors import InputError, OutputError
from transferscope.evaluation.mistakes import error_study
from transferscope.report.model_card import card_sections
from transferscope.report.pages import registry
from transferscope.report.pages.atlas import STATUS_WORDS, write_atlas
from transferscope.report.pages.content import AtlasContent, OtherSet
from transferscope.report.pages.overview import headline
from transferscope.report.pages.site import TEMPLATES
from transferscope.report.questions import QUESTIONS, witness_words

VOID = {"meta", "link", "img", "br", "wbr", "input", "hr"}


class Page(HTMLParser):
    """Checks that tags balance; collects text, references and ids."""

    def __init__(self, path: Path):
        super().__init__()
        self.path = path
        self.open: list[str] = []
        self.references: list[str] = []
        self.ids: list[str] = []
        self.alts: list[str | None] = []
        self.text: list[str] = []
        self.title = ""
        self.lang: str | None = None
        self.html = path.read_text(encoding="utf-8")
        self.feed(self.html)
        self.close()
        assert not self.open, f"{path} leaves {self.open} open"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        if tag == "html":
            self.lang = values.get("lang")
        if tag == "img":
            self.alts.append(values.get("alt"))
        self.ids += [value for name, value in attrs if name == "id" and value]
        self.references += [
            value for name, value in attrs if name in ("href", "src", "xlink:href") and value
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"{self.path} closes {tag} too often"
        assert self.open.pop() == tag, f"{self.path} closes {tag} out of order"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "title" and "svg" not in self.open:
            self.title += data
        if self.open and self.open[-1] not in ("style", "script"):
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def content(made_atlas: tuple[AtlasContent, Path]) -> AtlasContent:
    return made_atlas[0]


@pytest.fixture(scope="module")
def atlas(made_atlas: tuple[AtlasContent, Path]) -> Path:
    return made_atlas[1]


@pytest.fixture(scope="module")
def without_pictures(content: AtlasContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "atlas"
    return write_atlas(content, out, pictures=False).parent


@pytest.fixture(scope="module")
def lacking(content: AtlasContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The atlas of two networks with names, whose pictures and tuned drawings are gone."""
    home = tmp_path_factory.mktemp("out")
    assert content.comparison is not None
    changed = dataclasses.replace(
        content,
        facts={"Drawings": "16 steps", "Controls": "3"},
        comparison=dataclasses.replace(content.comparison, pair=("first <run>", "second")),
        renders={key: one for key, one in content.renders.items() if key[0] != "tuned"},
        data_root=home / "moved",
    )
    return write_atlas(changed, home / "atlas").parent


@pytest.fixture(scope="module")
def pages(atlas: Path) -> dict[str, Page]:
    return {str(path.relative_to(atlas)): Page(path) for path in sorted(atlas.rglob("*.html"))}


def digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_every_reference_resolves_inside_the_folder(atlas: Path, pages: dict[str, Page]) -> None:
    used = set()
    for page in pages.values():
        for reference in page.references:
            parts = urlsplit(reference)
            assert not parts.scheme, f"{page.path} refers to {reference}"
            assert not parts.netloc
            if not parts.path:
                assert parts.fragment in page.ids, f"{page.path} lacks #{parts.fragment}"
                continue
            target = (page.path.parent / unquote(parts.path)).resolve()
            assert target.is_relative_to(atlas.resolve())
            assert target.is_file(), f"{page.path} refers to {reference}"
            used.add(target)
    pictures = {path.resolve() for path in (atlas / "images").rglob("*") if path.is_file()}
    assert pictures
    assert pictures <= used, "a picture was written that no page shows"
    assert {page.path.resolve() for page in pages.values()} <= used | {
        (atlas / "index.html").resolve()
    }


def test_nothing_comes_from_the_net(atlas: Path) -> None:
    names = {"http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"}  # names, not addresses
    for path in atlas.rglob("*"):
        if path.suffix in (".html", ".css", ".js"):
            text = path.read_text(encoding="utf-8")
            assert set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+[^\s\"')]*", text)) <= names, path
            assert "@import" not in text


def test_every_drawn_channel_has_its_page(content: AtlasContent, pages: dict[str, Page]) -> None:
    assert content.comparison is not None
    units = {name for name in pages if name.startswith("units/")}
    assert len(units) == len(content.comparison.drawings) == 12
    assert {"units/blocks-4-2-3.html", "units/head-conv-2-minus.html"} <= units
    for name in units:
        assert "people predict channels better from real exemplars (Borowski et al. 2021)" in (
            pages[name].words
        )
    assert {name for name in pages if name.startswith("layers/")} == {
        "layers/blocks-2-1.html",
        "layers/blocks-4-2.html",
        "layers/head-conv.html",
    }


def test_a_channels_page_has_its_figures(content: AtlasContent, pages: dict[str, Page]) -> None:
    assert content.comparison is not None
    page = pages["units/blocks-4-2-3.html"]
    gain = next(
        row for row in content.comparison.of_witness("class_information") if row.channel == 3
    )
    for shown in (
        f"Class information share of variance {gain.value:+.2f} {gain.low:+.2f} to {gain.high:+.2f} "
        f"controls −{-gain.null:.2f} 0.003",
        "Responses 1 − r² 0.23 0.18 to 0.28 margin 0.01 < 0.001",
        "Loss without it nats +0.0030 +0.0010 to +0.0050 no difference 0.0000 0.500",
        "Drawings alike, base and tuned 0.63",
        "The same, tuned from another seed 0.75",
        "The same, unrelated channels (chance) 0.35",
        "Of the 20 best pictures, shared 45%",
        "activation 8.20, best real picture 4.80 (1.7×)",
        STATUS_WORDS["below_exemplar"],
        "Drawn as most mattering : the loss rises with it more",
    ):
        assert shown in page.words, shown
    assert page.html.count("<svg") == 1
    drawn = re.search(r"<figcaption>seed 1.*?</figcaption>", page.html, re.DOTALL)
    assert drawn is not None
    assert "optimized" not in drawn.group()


def test_a_channels_page_answers_four_questions(pages: dict[str, Page]) -> None:
    def answers(name: str) -> list[str]:
        found = re.findall(r"<dd><b>(.*?)\.</b>", pages[f"units/{name}.html"].html)
        return [str(one) for one in found]

    assert answers("blocks-4-2-3") == ["Yes", "Yes", "Not found", "Yes"]
    assert answers("blocks-4-2-2") == ["Yes", "Not found", "Yes", "Not found"]
    chips = pages["units/blocks-4-2-2.html"].words
    assert "moved not found to have learned matters not found to look different" in chips


@pytest.mark.usefixtures("undrawn")
def test_an_estimate_is_not_called_tested(pages: dict[str, Page]) -> None:
    html = pages["layers/blocks-4-2.html"].html
    guessed = re.findall(r'<tr data-index="(\d+)".*?(≈|</tr>)', html, re.DOTALL)
    assert len(guessed) == 24
    assert {int(index) for index, mark in guessed if mark == "≈"} == set(range(12, 24))


def test_what_tests_and_judges_say_reaches_the_pages(pages: dict[str, Page]) -> None:
    unit = pages["units/blocks-4-2-3.html"].words
    assert "The drawings look different: squared distance 0.250" in unit
    assert f"the network believes less in {made.NASTY} ." in unit
    assert "The judge is another network." in unit
    assert "exemplars 83% 70% – 91%" in unit
    assert "drawings – –" in unit
    unseen = pages["units/blocks-4-2-2.html"].words
    assert "could not be told apart with 2 seeds" in unseen
    layer = pages["layers/blocks-4-2.html"].words
    for shown in (
        "CKA, 1: alike 0.90 0.80 to 0.95",
        "Procrustes distance, 0: alike 0.30 unrelated 1.60",
        "Gain of separation +0.21 controls +0.01, −0.02, 0.00",
        "Weights, relative change 0.12",
        "The drawings of 6 channels of blocks.4.2 could not be told apart",
    ):
        assert shown in layer, shown


def test_stages_pictures_epochs_and_trends_are_on_the_front_page(pages: dict[str, Page]) -> None:
    words = pages["index.html"].words
    for shown in (
        "blocks.2 frozen: bit-identical",
        "blocks.4 −2.0 −5.0 to +1.0 +0.120 +0.118 to +0.122 1 2",
        "Of 12 test pictures tuning won 3 and lost 2; 6 were and are right, 1 neither.",
        "Layer epoch 1 epoch 3 blocks.4.2 0 1",
        "Gains of class information rise with depth (Somers' D +0.40, 0.10 to 0.60, p 0.004).",
        "no trend over depth could be shown (Somers' D +0.10",
    ):
        assert shown in words, shown
    assert words.index("blocks.4 no stage alone") > words.index("Pictures that tuning lost")


def test_networks_are_called_by_their_names(lacking: Path) -> None:
    page = Page(lacking / "units/blocks-4-2-3.html")
    assert '<h2 class="network base">first &lt;run&gt;</h2>' in page.html
    assert "Drawings alike, first <run> and second" in page.words
    assert "second minus first <run>" in Page(lacking / "index.html").words


@pytest.mark.usefixtures("undrawn")
def test_what_was_not_asked_is_called_so(content: AtlasContent, tmp_path: Path) -> None:
    assert content.comparison is not None
    asked = made.uncontrolled(content.comparison)
    left = tuple(row for row in asked.rows if row.witness not in ("patching", "drawings"))
    record = dataclasses.replace(asked, rows=left)
    out = write_atlas(dataclasses.replace(content, comparison=record), tmp_path / "atlas").parent
    unit = Page(out / "units/blocks-4-2-3.html")
    assert re.findall(r"<dd><b>(.*?)\.</b>", unit.html) == ["Yes", *["Not asked"] * 3]
    layer, front = Page(out / "layers/blocks-4-2.html"), Page(out / "index.html")
    assert layer.html.count('class="unasked"') == 3
    assert 'value="learned">those' not in layer.html, "nobody can be asked for those that learned"
    assert 'value="moved">those' in layer.html
    assert "Learned most" not in front.words
    assert "over base. Whether they learned was not asked: there are no controls." in front.words
    assert "blocks.4.2 24 24 – – – 6" in front.words
    assert "No controls were made here" in Page(out / "method.html").words


def test_a_layers_page_has_all_its_channels_the_most_learned_first(
    content: AtlasContent, pages: dict[str, Page]
) -> None:
    assert content.comparison is not None
    page = pages["layers/blocks-4-2.html"]
    body = page.html[page.html.index('<tbody id="channels">') :]
    rows = re.findall(
        r'<tr data-index="(\d+)".*?data-found="(.*?)" data-status="(.*?)">(.*?)</tr>',
        body,
        re.DOTALL,
    )
    order = [row.channel for row in content.comparison.ranked() if row.layer == "blocks.4.2"]
    assert [int(index) for index, _, _, _ in rows] == order
    assert len(order) == 24
    learned = {int(index) for index, found, _, _ in rows if "learned" in found.split()}
    assert learned == set(range(1, 24, 2))
    assert {int(index): status for index, _, status, _ in rows if status} == {
        index: "drawn optimized" if index != 3 else "drawn optimized below_exemplar"
        for index in range(6)
    }
    linked = {int(index) for index, _, _, cells in rows if "../units/" in cells}
    assert linked == set(range(6))
    for shown in (
        "Moved 24 of 24",
        "Learned 12 of 24",
        "Matter 8 of 12 tested",
        "different 1 of 6 tested",
    ):
        assert shown in page.words, shown
    assert "23 optimized, 1 below exemplar" in page.words


@pytest.mark.usefixtures("undrawn")
def test_where_nothing_was_learned_the_pages_say_so(content: AtlasContent, tmp_path: Path) -> None:
    assert content.comparison is not None
    quiet = made.nothing_learned(content.comparison)
    out = write_atlas(dataclasses.replace(content, comparison=quiet), tmp_path / "atlas").parent
    front = Page(out / "index.html").words
    assert "No channel of blocks.4.2 and head <conv> was found to have learned" in front
    assert "not proof that nothing was learned" in front
    assert "None of them was found to have learned." in front
    assert "Learned most" not in front
    for path in out.rglob("*.html"):
        html = path.read_text(encoding="utf-8")
        assert '<span class="chip found">learned</span>' not in html, path
        words = Page(path).words.lower()
        for asserted in ("did not learn", "unchanged", "no difference between the networks"):
            assert asserted not in words, path


def test_nothing_is_called_changed(pages: dict[str, Page], without_pictures: Path) -> None:
    """A channel moved, learned, matters or looks different; one word for all four says nothing."""
    for path in without_pictures.rglob("*.html"):
        assert not re.search(r"\bchanged\b", Page(path).words), path
    assert not re.search(r"\bchanged\b", pages["units/blocks-4-2-3.html"].words)


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize("make", [made.undrawn, made.one_seed])
def test_less_was_drawn(
    make: Callable[[Comparison], Comparison], content: AtlasContent, tmp_path: Path
) -> None:
    assert content.comparison is not None
    record = make(content.comparison)
    bare = dataclasses.replace(content, comparison=record, renders=made.renders(record))
    out = write_atlas(bare, tmp_path / "atlas").parent
    words = Page(out / "index.html").words
    assert "13 of 27 channels of blocks.4.2 and head <conv> learned" in words
    assert "How alike the drawings are" not in words
    assert len(list(out.glob("units/*.html"))) == len(record.drawings)
    assert ("No channel was drawn." in words) == (not record.drawings)
    layer = Page(out / "layers/blocks-4-2.html").words
    assert ("No channel of this layer was drawn." in layer) == (not record.drawings)
    assert "All 24 channels" in layer
    for path in (out / "units").glob("*.html"):
        assert "Drawings alike" not in Page(path).words
        assert "what differs here is noise" not in Page(path).words


@pytest.mark.usefixtures("undrawn")
def test_a_comparison_of_frozen_layers_alone_is_whole(
    content: AtlasContent, tmp_path: Path
) -> None:
    assert content.comparison is not None
    record = dataclasses.replace(
        made.undrawn(content.comparison), layers=content.comparison.layers[:1], rows=()
    )
    bare = dataclasses.replace(content, comparison=record, renders={})
    out = write_atlas(bare, tmp_path / "atlas").parent
    words = Page(out / "index.html").words
    assert "blocks.2.1 is bit-identical in both networks, as frozen." in words
    assert "What the transfer taught" not in words


def test_the_method_asks_four_questions_and_cites_its_sources(pages: dict[str, Page]) -> None:
    page = pages["method.html"]
    for question in QUESTIONS:
        for said in (question.asks, question.effect, question.null, question.caution):
            assert said in page.words
        assert question.slug in page.ids
    assert "repeated 3 times with the training labels shuffled" in page.words
    assert "by chance alone: 1, 0, 0 channels" in page.words
    for cited in (
        "Kornblith et al. 2019",
        "Benjamini and Hochberg 1995",
        "Szabó et al. 2020",
        "Neyshabur et al. 2020",
        "Zimmermann et al. 2024",
        "Ding et al. 2021",
    ):
        assert cited in page.words


def test_every_witness_has_words() -> None:
    from transferscope.report.questions import _WORDS

    assert set(WITNESSES) | {question.witness for question in QUESTIONS} <= set(_WORDS)
    assert witness_words("unheard_of").label == "Unheard of"


def test_pages_have_title_language_and_alternative_texts(pages: dict[str, Page]) -> None:
    titles = [page.title.strip() for page in pages.values()]
    assert all(titles)
    assert len(set(titles)) == len(titles)
    for page in pages.values():
        assert page.lang == "en"
        assert '<meta charset="utf-8">' in page.html
        assert all(page.alts)
        assert len(set(page.ids)) == len(page.ids), f"{page.path} has an id twice"
        assert 'loading="lazy"' in page.html or not page.alts


def test_names_are_shown_literally(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert "<b>猫" not in page.html
        assert "<conv>" not in page.html
    assert made.NASTY in pages["index.html"].words
    assert made.NASTY in pages["evaluation.html"].words
    assert "head <conv>" in pages["layers/head-conv.html"].words


def test_groups_and_the_gap_to_validation_are_on_the_evaluations_page(
    pages: dict[str, Page],
) -> None:
    page = pages["evaluation.html"]
    words = " ".join(" ".join(page.text).split())
    assert "The worst group is 'new': 40.0% of 50 pictures" in words
    assert "more than chance explains" in words
    assert "too few to tell" in words
    assert "43.0% of the validation pictures have a lookalike in training" in words
    assert "AUC 0.93" in words
    assert "brightness (0.70)" in words


def test_scripts_hold_no_data(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert re.findall(r"<script[^>]*>(.*?)</script>", page.html, re.DOTALL) == [""]


def test_an_identical_layer_says_so_and_measures_nothing(
    atlas: Path, pages: dict[str, Page]
) -> None:
    layer = pages["layers/blocks-2-1.html"]
    assert "frozen: bit-identical" in layer.words
    assert "nothing to measure or to draw" in layer.words
    assert "svg" not in layer.html
    assert "Benjamini" not in layer.words
    assert "blocks.2.1 40 frozen: bit-identical 1.00" in pages["index.html"].words
    assert not list((atlas / "images/renders").glob("blocks-2-1-*"))


def test_provenance_is_said_once(lacking: Path) -> None:
    for name in ("index.html", "units/blocks-4-2-3.html"):
        html = (lacking / name).read_text(encoding="utf-8")
        assert html.count("<dt>Drawings</dt>") == html.count("<dt>Controls</dt>") == 1


def test_pictures_are_what_was_rendered(content: AtlasContent, atlas: Path) -> None:
    file = atlas / "images/renders/blocks-4-2-3-tuned-1.webp"
    with Image.open(file) as picture:
        assert picture.format == "WEBP"
        shown = np.asarray(picture.convert("RGB"), dtype=float)
    render = content.renders["tuned", "blocks.4.2", 3, "plus", 1]
    assert shown.shape == render.picture.shape
    assert np.abs(shown - render.picture).mean() < 8
    for thumbnail in (atlas / "images/pictures").iterdir():
        with Image.open(thumbnail) as picture:
            assert picture.size == (160, 160)


def test_the_front_page_shows_the_shortlist_by_reason(
    content: AtlasContent, pages: dict[str, Page]
) -> None:
    page = pages["index.html"]
    links = [name for name in page.references if name.startswith("units/")]
    assert len(links) == len(set(links)) == 12
    headings = ("Learned most", "Learned least", "Matter most", "At random")
    places = [page.html.index(f"<h2>{heading}</h2>") for heading in headings]
    assert places == sorted(places)
    parts = [page.html[a:b] for a, b in itertools.pairwise([*places, len(page.html)])]
    shown = [re.findall(r'href="(units/[^"]*)"', part) for part in parts]
    assert shown[0][:2] == ["units/blocks-4-2-5.html", "units/blocks-4-2-1.html"]
    assert shown[2] == ["units/blocks-4-2-3.html"]
    assert content.comparison is not None
    gains = {
        row.channel: row for row in content.comparison.of_witness("class_information", "blocks.4.2")
    }
    least = sorted((0, 4), key=lambda channel: gains[channel].value - gains[channel].null)
    own = [name for name in shown[1] if "blocks" in name]
    assert own == [f"units/blocks-4-2-{channel}.html" for channel in least]


def test_the_same_content_gives_the_same_bytes(
    content: AtlasContent, atlas: Path, tmp_path: Path
) -> None:
    assert digest(write_atlas(content, tmp_path / "again").parent) == digest(atlas)


@pytest.mark.usefixtures("undrawn")
def test_an_earlier_atlas_is_replaced_whole(content: AtlasContent, tmp_path: Path) -> None:
    alone = dataclasses.replace(content, comparison=None, renders={})
    write_atlas(content, tmp_path / "atlas")
    write_atlas(alone, tmp_path / "new")
    assert write_atlas(alone, tmp_path / "atlas") == tmp_path / "atlas" / "index.html"
    assert digest(tmp_path / "atlas") == digest(tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["atlas", "new"]


@pytest.mark.usefixtures("undrawn")
def test_a_users_page_in_an_atlas_is_never_lost(content: AtlasContent, tmp_path: Path) -> None:
    atlas = write_atlas(content, tmp_path / "atlas").parent
    (atlas / "notes.html").write_text("mine")
    before = digest(atlas)
    with pytest.raises(OutputError, match=r"holds 'notes\.html'"):
        write_atlas(content, atlas)
    assert digest(atlas) == before


def test_a_folder_with_other_files_is_refused(content: AtlasContent, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputError, match="not Transferscope's"):
        write_atlas(content, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.usefixtures("undrawn")
def test_a_failure_leaves_the_earlier_atlas(content: AtlasContent, tmp_path: Path) -> None:
    out = tmp_path / "atlas"
    write_atlas(content, out)
    before = digest(out)
    assert content.comparison is not None
    drawings = content.comparison.drawings
    twice = dataclasses.replace(content.comparison, drawings=(*drawings, drawings[0]))
    broken = dataclasses.replace(content, comparison=twice)
    with pytest.raises(InputError, match="drawn twice"):
        write_atlas(broken, out)
    assert digest(out) == before


def test_a_missing_picture_shows_as_a_tile(lacking: Path) -> None:
    page = Page(lacking / "units/blocks-4-2-3.html")
    assert page.words.count("picture not found") == 7
    assert not any("images/pictures" in reference for reference in page.references)


def test_a_missing_render_shows_as_a_tile(lacking: Path, pages: dict[str, Page]) -> None:
    name = "units/blocks-4-2-3.html"
    assert "no drawing of seed 0" in Page(lacking / name).words
    assert "no drawing of seed 0" not in pages[name].words


def test_where_exemplars_excite_a_channel_is_drawn_on_them(
    pages: dict[str, Page], without_pictures: Path, lacking: Path, tmp_path: Path
) -> None:
    name = f"units/blocks-4-2-{made.LOOKED_AT}.html"
    page = pages[name]
    above = page.html[: page.html.index("What its witnesses say")]
    outlines = re.findall(r'<path d="([^"]+)"', above)
    assert outlines == ["M0.25 0.25L0.75 0.25L0.5 0.75L0.25 0.25Z"] * 4  # 2 parts, 2 networks
    frames = re.findall(r'<rect x="([^"]+)" y="([^"]+)" width="([^"]+)" height="([^"]+)"', above)
    assert frames == [("0.5", "0.25", "0.5", "0.5")] * 4  # of a whole picture there is none
    assert "35% of the 20 best shared; 5% by chance" in page.words
    with Image.open(
        tmp_path / page.path.parent / next(one for one in page.references if "images/seen/" in one)
    ) as seen:
        assert seen.size == (24, 24)  # as the network is given it, not a thumbnail
    bare = Page(without_pictures / name)
    assert not re.search(
        "<path d=|<rect x=", bare.html[: bare.html.index("What its witnesses say")]
    )
    gone = Page(lacking / name)
    assert not re.search('<path d="M0.25', gone.html), "an outline is drawn on no picture"


def test_units_that_answer_alike_are_named_and_chance_left_out(pages: dict[str, Page]) -> None:
    page = pages[f"units/blocks-4-2-{made.LOOKED_AT}.html"]
    near = page.html[page.html.index("Units that answer alike") :]
    assert '<a href="../units/blocks-4-2-1.html">1</a>' in near  # drawn, so it has a page
    assert "0.83" in near
    assert "0.11" not in near
    assert f"{made.LOOKED_AT} (the same channel)" in page.words
    assert "answer alike" not in pages["units/blocks-4-2-1.html"].words


def test_a_class_has_a_page_with_its_errors_and_the_units_that_serve_it(
    pages: dict[str, Page], without_pictures: Path
) -> None:
    listed = pages["classes.html"]
    assert made.NASTY in listed.words
    assert {f"classes/{place}.html" for place in range(4)} <= set(listed.references)
    told = pages["classes/1.html"]
    assert made.NASTY in told.words
    known = made.predictions(tuple(f"{n}" for n in range(12)))
    missed = int(((known.labels == 1) & ~known.right).sum())
    mistaken = int(((known.predicted == 1) & ~known.right).sum())
    assert missed
    overlays = [one for one in told.references if "images/maps/" in one]
    assert len(overlays) == 2 * 2, "a right picture and a wrong one, each in both networks"
    ideals = [one for one in told.references if "images/ideals/" in one]
    assert ideals == ["../images/ideals/1-base.webp", "../images/ideals/1-tuned.webp"]
    assert told.html.count("<img") == missed + mistaken + len(overlays) + len(ideals)
    assert "transferscope ideal RUN --class CLASS" in pages["classes/0.html"].words
    assert "Taken for Löwenzahn (3)" in told.words
    serving = [r for r in told.references if "channel-" in r or "units/" in r]
    assert "../layers/blocks-4-2.html#channel-11" in serving  # not drawn: its row in the table
    assert "../units/blocks-4-2-1.html" in serving
    assert (
        "none was found to serve it; that is not to say that none does"
        in pages["classes/0.html"].words
    )
    bare = Page(without_pictures / "classes/1.html")
    assert bare.html.count("<img") == len(ideals), (
        "only drawings, which show no picture of the data"
    )


def test_a_picture_has_a_page_with_all_that_is_known_of_it(pages: dict[str, Page]) -> None:
    listed = pages["pictures.html"]
    assert f"3 of {pictures_content.OF} test pictures" in listed.words
    assert "1 of 3 wrong answers" in listed.words
    told = pages["pictures/0.html"]
    for shown in (
        f"{made.NASTY}, taken for Löwenzahn",
        "right before, wrong after",
        "called a stranger at 5% false alarms",
        "failed the check: <nowhere>",
        "base, with its probe",
        f"{made.NASTY} its class < 1%",
        "Löwenzahn > 99%",
        "what speaks for “ Löwenzahn ” in each network, by Grad-CAM",
        "2/255 of any value, by pgd",
        "foxglove 93.0%",
        "+0.25 +1.50",
        "Löwenzahn 0.91",
    ):
        assert shown in told.words, shown
    assert "Not asked of this picture" not in told.words
    assert {
        "../classes/1.html",
        "../map.html#dot-1",
        "../units/blocks-4-2-3.html",
        "../layers/blocks-4-2.html#channel-11",
        "../images/attacks/0-0-adversarial.webp",
        "../images/maps/0-base.webp",
    } <= set(told.references)
    assert '<link rel="next" href="../pictures/1.html">' in told.html


def test_of_a_picture_that_was_not_asked_the_page_says_how_to_ask(pages: dict[str, Page]) -> None:
    bare = pages["pictures/2.html"]
    for shown in (
        "right after tuning",
        "Not kept; transferscope evaluate RUN keeps it.",
        "transferscope explain RUN IMAGE Only 2 maps were made in 10 seconds.",
        "transferscope explain RUN IMAGE --units",
        "transferscope attack RUN IMAGE --out RUN/attacks/NAME",
        "transferscope predict RUN IMAGE",
    ):
        assert shown in bare.words, shown
    assert "images/maps" not in bare.html
    assert "Where the answer comes from" not in re.findall(r"<h2[^>]*>(.*?)</h2>", bare.html)


def test_maps_are_laid_over_the_picture_as_the_network_sees_it(atlas: Path) -> None:
    seen = {}
    for network in ("base", "tuned"):
        with Image.open(atlas / f"images/maps/0-{network}.webp") as picture:
            seen[network] = np.asarray(picture.convert("RGB"), dtype=int)
    assert seen["base"].shape == (24, 24, 3)
    colour = {network: np.ptp(one, axis=-1) for network, one in seen.items()}
    assert colour["base"][:, :9].mean() > 2 * colour["base"][:, 15:].mean()
    assert colour["tuned"][:, 15:].mean() > 2 * colour["tuned"][:, :9].mean()


def test_errors_the_map_and_the_front_page_lead_to_pictures(pages: dict[str, Page]) -> None:
    for name in ("evaluation.html", "map.html", "pictures.html", "classes/1.html"):
        there = {one.removeprefix("../") for one in pages[name].references}
        assert "pictures/0.html" in there, name
    assert '<li><a href="pictures/0.html">' in pages["map.html"].html


@pytest.mark.usefixtures("undrawn")
def test_a_picture_that_is_gone_keeps_its_page(lacking: Path, without_pictures: Path) -> None:
    page = Page(lacking / "pictures/0.html")
    assert page.words.count("picture not found") == 3  # as seen, and two that it resembles
    assert "images/maps" not in page.html
    assert "Where the answer comes from" in page.words  # how to make it
    assert not list((lacking / "images").glob("maps/*"))
    assert not (without_pictures / "pictures.html").exists()
    assert not (without_pictures / "pictures").exists()
    for folder in ("maps", "attacks", "seen"):
        assert not (without_pictures / "images" / folder).exists()


def test_shortcuts_have_a_page_that_tells_alarms_from_what_was_asked(
    pages: dict[str, Page], without_pictures: Path
) -> None:
    page = pages["shortcuts.html"]
    assert "The predictions follow 1 of 2." in page.words
    assert page.words.count("alarm") == 1
    assert "the <top left> corner" in page.words
    assert made.NASTY in page.words
    assert page.html.count("<img") == 4 + 1  # exemplars and their mean map
    assert "25.0% 75.0%" in page.words  # the group that was least right, before and after
    assert (
        "<img"
        not in (without_pictures / "shortcuts.html")
        .read_text(encoding="utf-8")
        .split("exemplar")[0]
    )
    assert "1 alarm" in pages["index.html"].words


def test_the_search_finds_pages_layers_channels_and_classes(atlas: Path) -> None:
    text = (atlas / "assets/index.js").read_text(encoding="utf-8")
    entries = json.loads(text.removeprefix("window.atlasIndex = ").rstrip(";\n"))
    words = [entry[0] for entry in entries]
    assert {"Overview", "blocks.4.2", "blocks.4.2 1", "blocks.4.2 23", made.NASTY} <= set(words)
    assert len(words) == len(set(words))
    for _, address in entries:
        file, _, place = unquote(address).partition("#")
        assert (atlas / file).is_file()
        assert not place or f'id="{place}"' in (atlas / file).read_text(encoding="utf-8")


def test_the_map_shows_every_picture_twice(
    content: AtlasContent, pages: dict[str, Page], without_pictures: Path
) -> None:
    page = pages["map.html"]
    assert page.html.count("data-i=") == 2 * 10
    places = re.findall(r'cx="([\d.]+)" cy="([\d.]+)" r="8" data-i="3"', page.html)
    assert len(places) == 2
    assert places[0] != places[1]
    assert "90% trustworthy" in page.words
    assert "25% of the tuned map" in page.words
    assert "principal components" in page.words
    assert made.NASTY in page.words
    assert str(content.comparison.paths[9]) in page.words if content.comparison else False
    bare = Page(without_pictures / "map.html")
    assert bare.html.count("data-i=") == 2 * 10
    assert "#%.png" not in bare.html
    assert not (without_pictures / "images/map.webp").exists()


def test_the_users_pictures_that_an_atlas_holds_are_listed(
    content: AtlasContent, atlas: Path, without_pictures: Path
) -> None:
    listed = (atlas / "assets/own_pictures.txt").read_text(encoding="utf-8").splitlines()
    assert content.comparison is not None
    assert {repr(path) for path in content.comparison.paths} <= set(listed)
    assert len(listed) == len(set(listed))
    assert not (without_pictures / "assets/own_pictures.txt").read_text(encoding="utf-8")


def test_the_users_pictures_can_be_left_out(without_pictures: Path) -> None:
    assert list((without_pictures / "images/pictures").iterdir()) == []
    assert list((without_pictures / "images/renders").iterdir())
    for path in without_pictures.rglob("*.html"):
        page = Page(path)
        assert "#%.png" not in page.html
        assert "picture not found" not in page.words
    assert "left out of this atlas" in Page(without_pictures / "units/blocks-4-2-3.html").words


@pytest.mark.usefixtures("undrawn")
def test_the_pictures_have_a_page_if_they_were_inspected(
    content: AtlasContent, pages: dict[str, Page], tmp_path: Path
) -> None:
    words = pages["data.html"].words
    assert "37 pictures of 3 classes; 1 file left out; 1 copy; 2 near duplicates" in words
    assert "inspection.json" not in words
    assert all(
        any(reference.endswith("data.html") for reference in page.references)
        for page in pages.values()
    )
    plain = dataclasses.replace(content, inspection=None)
    out = write_atlas(plain, tmp_path / "atlas").parent
    assert not (out / "data.html").exists()
    assert not (out / "images/data").exists()
    assert "data.html" not in (out / "index.html").read_text(encoding="utf-8")


def test_the_inspected_pictures_can_be_left_out(without_pictures: Path) -> None:
    assert list((without_pictures / "images/data").iterdir()) == []
    page = Page(without_pictures / "data.html")
    assert "片" not in page.html
    assert "blank.png" not in page.html
    assert "Class by class" in page.words


@pytest.mark.usefixtures("undrawn")
def test_content_with_nothing_to_show_is_still_a_whole_atlas(
    content: AtlasContent, tmp_path: Path
) -> None:
    assert content.comparison is not None
    bare = dataclasses.replace(
        content,
        title="Bare",
        facts={},
        classes=(),
        counts={},
        validation_before=None,
        validation_after=None,
        evaluation=None,
        evaluation_base=None,
        predictions=None,
        history=[],
        comparison=dataclasses.replace(
            content.comparison, layers=(), rows=(), drawings=(), controls=0, map=None
        ),
        renders={},
        strips=None,
        inspection=None,
        study=None,
        card=None,
        explanations=(),
        verdicts=None,
        robustness=None,
        strangers=None,
        shortcuts=None,
        pictures=None,
    )
    out = write_atlas(bare, tmp_path / "atlas").parent
    assert sorted(path.name for path in out.glob("*.html")) == [
        "glossary.html",
        "index.html",
        "method.html",
    ]
    assert "No layer was compared." in Page(out / "index.html").words


@pytest.mark.usefixtures("undrawn")
def test_figures_that_are_not_numbers_show_as_a_dash(content: AtlasContent, tmp_path: Path) -> None:
    assert content.comparison is not None
    nan = float("nan")
    drawings = tuple(
        dataclasses.replace(
            one,
            test=dataclasses.replace(
                made.drawing_test(one.layer, one.channel),
                similarity=nan,
                rerender={"base": nan, "tuned": nan},
            ),
            activation={"base": None, "tuned": nan},
            statuses={"base": ("non_finite",) * 2, "tuned": ("optimized",) * 2},
        )
        for one in content.comparison.drawings
    )
    rows = tuple(
        dataclasses.replace(row, low=nan, high=nan, null=nan, p=nan, q=nan)
        for row in content.comparison.rows
    )
    weights = tuple(
        dataclasses.replace(row, witness="weight_change")
        for row in content.comparison.of_witness("response_change")
    )
    record = dataclasses.replace(content.comparison, drawings=drawings, rows=(*rows, *weights))
    index = write_atlas(dataclasses.replace(content, comparison=record), tmp_path / "atlas")
    words = Page(index.parent / "units/blocks-4-2-3.html").words
    assert "nan" not in words.split()
    assert STATUS_WORDS["non_finite"] in words
    assert "Weights relative change 0.23 – – –" in words
    assert "learned 0 of" not in words
    assert "nan" not in Page(index.parent / "layers/blocks-4-2.html").html


@pytest.mark.usefixtures("undrawn")
def test_layers_that_differ_only_in_case_or_punctuation_get_their_own_pages(
    content: AtlasContent, tmp_path: Path
) -> None:
    assert content.comparison is not None
    source = content.comparison.layers[1].layer
    names = ("a.b", "a-b", "A.B", "a_b", "../../up", "层")

    def named(several: Sequence[Any]) -> tuple[Any, ...]:
        own = [one for one in several if one.layer == source]
        return tuple(dataclasses.replace(one, layer=name) for name in names for one in own)

    record = dataclasses.replace(
        content.comparison,
        layers=named(content.comparison.layers),
        rows=named(content.comparison.rows),
        drawings=named(content.comparison.drawings),
    )
    index = write_atlas(
        dataclasses.replace(content, comparison=record, renders={}), tmp_path / "atlas"
    )
    files = [path.name.lower() for path in (index.parent / "layers").iterdir()]
    assert len(set(files)) == len(names)
    assert len(list((index.parent / "units").iterdir())) == len(names) * 6


@pytest.mark.usefixtures("undrawn")
def test_an_undecodable_file_name_does_not_stop_the_atlas(
    content: AtlasContent, tmp_path: Path
) -> None:
    assert content.predictions is not None
    paths = ("caf\udce9.png", *content.predictions.paths[1:])
    predictions = dataclasses.replace(
        content.predictions, paths=paths, labels=content.predictions.labels.flip(0)
    )
    changed = dataclasses.replace(content, predictions=predictions, study=None)
    index = write_atlas(changed, tmp_path / "atlas")
    assert "caf?.png" in (index.parent / "evaluation.html").read_text(encoding="utf-8")


def test_the_headline_says_what_the_figures_say(
    content: AtlasContent, pages: dict[str, Page]
) -> None:
    assert content.comparison is not None
    assert headline(content) == [
        "Tuning lifted accuracy on the 12 test pictures from 70.0% to 80.0% (paired 95% interval of the "
        "gain: −5.0 to +25.0 points).",
        *comparison_sentences(content.comparison),
    ]
    assert "13 of 27 channels of blocks.4.2 and head <conv> learned" in headline(content)[1]
    for sentence in headline(content):
        assert sentence in pages["index.html"].words
    worse = dataclasses.replace(
        content, evaluation=None, validation_before=0.9, validation_after=0.8
    )
    assert headline(worse)[0] == (
        "Tuning lowered accuracy on the validation pictures from 90.0% to 80.0%."
    )
    same = dataclasses.replace(worse, validation_after=0.9)
    assert headline(same)[0] == "Tuning left accuracy on the validation pictures at 90.0%."


def test_the_evaluation_shows_strips_errors_and_confusions(pages: dict[str, Page]) -> None:
    words = pages["evaluation.html"].words
    assert "41 of 60 strips were read without a single error: 68.3%." in words
    assert f"3× {made.NASTY} taken for Löwenzahn" in words
    assert "wrong answers that the classifier was surest of" in words
    assert "Top-1, look-alikes as one 95.00% – 95.00%" in words


def test_the_evaluation_gives_every_figure_its_interval_and_method(pages: dict[str, Page]) -> None:
    words = pages["evaluation.html"].words
    for shown in (
        "Top-1 70.00% 58.0% – 80.0% 80.00% 68.0% – 90.0% Wilson",
        "Macro F1 68.00% 58.0% – 80.0% 78.00% 68.0% – 90.0% bootstrap within classes",
        "Cross-entropy, nats 0.4200 0.330 – 0.550 0.4200 0.330 – 0.550 bootstrap",
        "Calibration error 3.10% 1.2% – 5.5% 3.10% 1.2% – 5.5% what chance alone would show",
        "--min-confidence 0.971 42.0% 100.0%",
        "Averaged over 4 views: 81.00%, +1.00%",
        "its odds of being recognised are 1.40 times as high",
    ):
        assert shown in words, shown


def test_the_evaluation_shows_doubts_labels_and_another_run(pages: dict[str, Page]) -> None:
    words = pages["evaluation.html"].words
    assert "Least certain" in words
    assert "2 labels are probably wrong" in words
    assert "the 2 likeliest are shown" in words
    assert words.count("labelled ") == 2
    assert "Right in photos alone 1 of 1" in words
    assert f"Right in {made.NASTY} alone 1 of 1" in words
    assert "McNemar p = 0.62" in words
    assert f"photos: Löwenzahn 71% {made.NASTY}: {made.NASTY} 52% is Löwenzahn" in words


def test_galleries_and_their_files_names_are_left_out_with_the_pictures(
    without_pictures: Path,
) -> None:
    words = Page(without_pictures / "evaluation.html").words
    for absent in ("Worst errors", "Least certain", "labelled", "picture left out"):
        assert absent not in words
    assert "2 labels are probably wrong" in words
    assert "McNemar" in words
    assert f"3× {made.NASTY} taken for Löwenzahn" in words


@pytest.mark.usefixtures("undrawn")
def test_an_evaluation_without_extras_says_so(content: AtlasContent, tmp_path: Path) -> None:
    plain = dataclasses.replace(
        made.evaluation(0.8),
        trend=None,
        views=None,
        confusable=None,
        confusions=(),
        abstention=made.abstention(operating=False),
    )
    study = dataclasses.replace(made.study(tuple(map(str, range(12)))), suspects=(), probable=0)
    bare = dataclasses.replace(
        content, evaluation=plain, evaluation_base=plain, predictions=None, study=study
    )
    out = write_atlas(bare, tmp_path / "atlas").parent
    words = Page(out / "evaluation.html").words
    assert "No threshold is proposed" in words
    for absent in ("larger classes", "Another run", "Labels that may be wrong", "with a probe"):
        assert absent not in words


@pytest.mark.usefixtures("undrawn")
def test_an_atlas_without_a_comparison_is_whole(content: AtlasContent, tmp_path: Path) -> None:
    alone = dataclasses.replace(content, comparison=None, renders={})
    out = write_atlas(alone, tmp_path / "atlas").parent
    names = sorted(path.name for path in out.glob("*.html"))
    pages = ("card", "classes", "data", "evaluation", "explanations", "glossary", "index", "method")
    assert names == [
        f"{one}.html" for one in (*pages, "pictures", "robustness", "shortcuts", "strangers")
    ]
    assert not (out / "layers").exists()
    for name in names:
        page = Page(out / name)
        for reference in page.references:
            target = (out / unquote(urlsplit(reference).path)).resolve()
            assert not urlsplit(reference).path or target.is_file(), reference
    front, method = Page(out / "index.html").words, Page(out / "method.html").words
    assert "from 70.0% to 80.0%" in front
    assert "transferscope compare RUN" in front
    assert "False discovery rate" not in front
    assert "Intervals" in method
    assert "Control transfers" not in method


def test_an_atlas_of_a_bare_run_needs_no_method(content: AtlasContent, tmp_path: Path) -> None:
    bare = dataclasses.replace(
        content,
        comparison=None,
        renders={},
        evaluation=None,
        evaluation_base=None,
        predictions=None,
        strips=None,
        inspection=None,
        study=None,
        card=None,
        explanations=(),
        verdicts=None,
        robustness=None,
        strangers=None,
        shortcuts=None,
        pictures=None,
    )
    out = write_atlas(bare, tmp_path / "atlas").parent
    assert [path.name for path in out.glob("*.html")] == ["index.html"]
    words = Page(out / "index.html").words
    assert "Tuning lifted accuracy on the validation pictures from 71.0% to 83.0%." in words
    assert "How to read this atlas" not in words
    assert headline(dataclasses.replace(bare, validation_before=None)) == [
        "Nothing was evaluated or compared yet."
    ]
    alone = dataclasses.replace(bare, evaluation=made.evaluation(0.8))
    assert headline(alone) == ["80.0% of the 12 test pictures are recognised."]


def test_the_card_has_a_page_that_says_what_the_file_says(
    content: AtlasContent, pages: dict[str, Page]
) -> None:
    words = pages["card.html"].words
    assert content.card is not None
    for section in card_sections(content.card):
        assert section.title in words
        for text in (*section.paragraphs, *section.entries, *(code for _, code in section.code)):
            assert " ".join(text.split()) in words
        for row in section.table.rows if section.table is not None else ():
            assert " ".join(" ".join(filter(None, row)).split()) in words
    assert made.NASTY in words


# ---------------------------------------------------------------------------- the registry


def test_every_page_has_its_template_and_its_place(atlas: Path, pages: dict[str, Page]) -> None:
    found = registry.all_pages()
    titles = ["Overview", "Data", "Classes", "Evaluation", "Pictures", "Strangers", "Map"]
    titles += ["Explanations", "Robustness", "Shortcuts", "Model card", "Method", "Glossary"]
    assert [page.title for page in found] == titles
    assert len({page.order for page in found}) == len(found)
    for page in found:
        assert (TEMPLATES / f"{page.slug}.html.j2").is_file()
        assert page.file in pages
    for name, shown in pages.items():
        bar = shown.html[: shown.html.index("<main")]
        links = re.findall(r'href="(?:\.\./)?(\w+\.html)"[^>]*>\w', bar)
        assert links == ["index.html", *(page.file for page in found)], name


@pytest.mark.usefixtures("undrawn")
def test_a_page_is_one_function_and_absent_where_it_has_nothing_to_show(
    content: AtlasContent, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    others = {page.slug: page for page in registry.all_pages() if page.slug != "method"}
    monkeypatch.setattr(registry, "_PAGES", others)

    @registry.page("method", title="Robust & <sound>", order=15)
    def shown(content: AtlasContent, site: object) -> registry.Section | None:
        return registry.Section({}) if content.history else None

    out = write_atlas(content, tmp_path / "atlas").parent
    html = (out / "index.html").read_text(encoding="utf-8")
    assert html.index("Robust &amp; &lt;sound&gt;") < html.index(">Data<")
    out = write_atlas(dataclasses.replace(content, history=[]), tmp_path / "none").parent
    assert not (out / "method.html").exists()
    assert "Robust &amp;" not in (out / "index.html").read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_kept_explanations_are_a_page_with_numbers_and_verdicts(
    content: AtlasContent, atlas: Path, without_pictures: Path, tmp_path: Path
) -> None:
    page = (atlas / "explanations.html").read_text(encoding="utf-8")
    for words in ("rank correlation 0.61", "SSIM 0.72", "bit-identical", "it points nowhere"):
        assert words in page, words
    assert "there are no &lt;ReLUs&gt;" in page
    assert len(list((atlas / "images/explanations").iterdir())) == 2
    bare = (without_pictures / "explanations.html").read_text(encoding="utf-8")
    assert "made up &amp; few" in bare
    assert Path(content.explanations[0].maps[0].picture).name not in bare
    assert not (without_pictures / "images/explanations").exists()
    nothing = dataclasses.replace(content, explanations=(), verdicts=None)
    assert not (write_atlas(nothing, tmp_path / "no").parent / "explanations.html").exists()


@pytest.mark.usefixtures("undrawn")
def test_errors_on_other_sets_reach_the_atlas(content: AtlasContent, tmp_path: Path) -> None:
    made_up = dataclasses.replace(content, comparison=None, renders={}, inspection=None)
    assert made_up.study is None or made_up.evaluation is not None
    predictions = made_up.predictions
    assert predictions is not None
    assert made_up.evaluation is not None
    study = error_study(predictions, split="street")
    other = OtherSet("street <b>", content.data_root, made_up.evaluation, study)
    index = write_atlas(dataclasses.replace(made_up, others=(other,)), tmp_path / "atlas")
    page = (index.parent / "evaluation.html").read_text(encoding="utf-8")
    assert "On another set: <bdi>street &lt;b&gt;</bdi>" in page
    part = page[page.index("On another set") :]
    assert "wrong answers that the classifier was surest of" in part
    assert study.worst[0].path.replace("&", "&amp;") in part
    bare = write_atlas(
        dataclasses.replace(made_up, others=(other,)), tmp_path / "bare", pictures=False
    )
    hidden = (bare.parent / "evaluation.html").read_text(encoding="utf-8")
    assert study.worst[0].path not in hidden[hidden.index("On another set") :]


@pytest.mark.usefixtures("undrawn")
def test_every_page_links_to_the_words(tmp_path: Path) -> None:
    index = write_atlas(made.content(tmp_path / "data"), tmp_path / "atlas")
    pages = list(index.parent.rglob("*.html"))
    assert len(pages) > 5
    for page in pages:
        up = "../" * (len(page.relative_to(index.parent).parts) - 1)
        assert f'href="{up}glossary.html">What the words mean' in page.read_text(encoding="utf-8")
    words = (index.parent / "glossary.html").read_text(encoding="utf-8")
    assert "false discovery rate" in words
