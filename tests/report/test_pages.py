"""The atlas is whole, links to itself alone, and shows every name literally."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import atlas_content as made
import numpy as np
import pytest
from PIL import Image

from transferscope.errors import InputError, OutputError
from transferscope.evaluation.mistakes import error_study
from transferscope.report.model_card import card_sections
from transferscope.report.pages import registry
from transferscope.report.pages.atlas import STATUS_WORDS, write_atlas
from transferscope.report.pages.content import AtlasContent, OtherSet
from transferscope.report.pages.overview import headline
from transferscope.report.pages.site import TEMPLATES

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
def content(tmp_path_factory: pytest.TempPathFactory) -> AtlasContent:
    return made.content(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def atlas(content: AtlasContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_atlas(content, tmp_path_factory.mktemp("out") / "atlas").parent


@pytest.fixture(scope="module")
def without_pictures(content: AtlasContent, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "atlas"
    return write_atlas(content, out, pictures=False).parent


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


def test_every_channel_has_its_page(content: AtlasContent, pages: dict[str, Page]) -> None:
    assert content.comparison is not None
    channels = [channel for layer in content.comparison.layers for channel in layer.channels]
    units = {name for name in pages if name.startswith("units/")}
    assert len(units) == len(channels) == 14
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


def test_a_channels_page_has_its_figures(pages: dict[str, Page]) -> None:
    words = pages["units/blocks-4-2-3.html"].words
    for shown in ("0.430", "0.800", "0.780", "0.350", "+0.360", "< 0.001", "0.003", "45%"):
        assert shown in words
    assert "changed" in words
    assert STATUS_WORDS["below_exemplar"] in words
    assert "activation 8.20, best real picture 4.80 (1.7×)" in words


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


def test_scripts_hold_no_data(pages: dict[str, Page]) -> None:
    for page in pages.values():
        assert re.findall(r"<script[^>]*>(.*?)</script>", page.html, re.DOTALL) == [""]


def test_an_identical_layer_says_so_and_tests_nothing(pages: dict[str, Page]) -> None:
    layer, unit = pages["layers/blocks-2-1.html"], pages["units/blocks-2-1-0.html"]
    for page in (layer, unit):
        assert "frozen: bit-identical" in page.words
        assert "base = tuned" in page.words
        assert "Benjamini" not in page.words
    assert not any("tuned" in reference for reference in unit.references)
    assert "frozen: bit-identical" in pages["index.html"].words


@pytest.mark.usefixtures("undrawn")
def test_an_identical_layer_drawn_in_both_networks_is_shown_once(
    content: AtlasContent, tmp_path: Path
) -> None:
    renders = dict(content.renders)
    for (_, layer, channel, sign, seed), render in content.renders.items():
        renders["tuned", layer, channel, sign, seed] = render
    out = write_atlas(dataclasses.replace(content, renders=renders), tmp_path / "atlas").parent
    files = [path.name for path in (out / "images/renders").glob("blocks-2-1-*")]
    assert len(files) == 4
    assert all("-base-" in name for name in files)


@pytest.mark.usefixtures("undrawn")
def test_provenance_is_said_once(content: AtlasContent, tmp_path: Path) -> None:
    told = dataclasses.replace(content, facts={"Renders": "16 steps", "Exemplars": "of 12"})
    out = write_atlas(told, tmp_path / "atlas").parent
    for name in ("index.html", "units/blocks-4-2-3.html"):
        html = (out / name).read_text(encoding="utf-8")
        assert html.count("<dt>Renders</dt>") == html.count("<dt>Exemplars</dt>") == 1


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


def test_the_front_page_leads_from_most_to_least_changed(pages: dict[str, Page]) -> None:
    links = [name for name in pages["index.html"].references if name.startswith("units/")]
    assert len(links) == len(set(links)) == 12
    assert links[0] == "units/blocks-4-2-5.html"
    assert set(links[6:]).isdisjoint(links[:6])


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
    layer = content.comparison.layers[1]
    twice = dataclasses.replace(layer, channels=layer.channels + layer.channels[:1])
    broken = dataclasses.replace(
        content, comparison=dataclasses.replace(content.comparison, layers=(twice,))
    )
    with pytest.raises(InputError, match="compared twice"):
        write_atlas(broken, out)
    assert digest(out) == before


@pytest.mark.usefixtures("undrawn")
def test_a_missing_picture_shows_as_a_tile(content: AtlasContent, tmp_path: Path) -> None:
    moved = dataclasses.replace(content, data_root=tmp_path / "moved")
    index = write_atlas(moved, tmp_path / "atlas")
    page = Page(index.parent / "units/blocks-4-2-3.html")
    assert page.words.count("picture not found") == 7
    assert not any("images/pictures" in reference for reference in page.references)


@pytest.mark.usefixtures("undrawn")
def test_a_missing_render_shows_as_a_tile(content: AtlasContent, tmp_path: Path) -> None:
    renders = {key: one for key, one in content.renders.items() if key[0] != "tuned"}
    index = write_atlas(dataclasses.replace(content, renders=renders), tmp_path / "atlas")
    assert "no render of seed 0" in Page(index.parent / "units/blocks-4-2-3.html").words


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
        comparison=dataclasses.replace(content.comparison, layers=()),
        renders={},
        strips=None,
        inspection=None,
        study=None,
        card=None,
    )
    out = write_atlas(bare, tmp_path / "atlas").parent
    assert sorted(path.name for path in out.glob("*.html")) == [
        "glossary.html",
        "index.html",
        "method.html",
    ]
    assert "No layer was compared." in Page(out / "index.html").words


def test_figures_that_are_not_numbers_show_as_a_dash(content: AtlasContent, tmp_path: Path) -> None:
    assert content.comparison is not None
    layer = content.comparison.layers[1]
    nan = float("nan")
    channels = tuple(
        dataclasses.replace(
            channel,
            similarity=nan,
            statistic=nan,
            rerender={"base": nan, "tuned": nan},
            activation={"base": nan, "tuned": 1.0},
            statuses={"base": "non_finite"},
        )
        for channel in layer.channels
    )
    record = dataclasses.replace(
        content.comparison, layers=(dataclasses.replace(layer, channels=channels),)
    )
    index = write_atlas(dataclasses.replace(content, comparison=record), tmp_path / "atlas")
    words = Page(index.parent / "units/blocks-4-2-3.html").words
    assert "nan" not in words.split()
    assert STATUS_WORDS["non_finite"] in words


@pytest.mark.usefixtures("undrawn")
def test_layers_that_differ_only_in_case_or_punctuation_get_their_own_pages(
    content: AtlasContent, tmp_path: Path
) -> None:
    assert content.comparison is not None
    layer = content.comparison.layers[1]

    def named(name: str) -> object:
        channels = tuple(dataclasses.replace(channel, layer=name) for channel in layer.channels)
        return dataclasses.replace(layer, layer=name, channels=channels)

    names = ("a.b", "a-b", "A.B", "a_b", "../../up", "层")
    record = dataclasses.replace(content.comparison, layers=tuple(map(named, names)))
    index = write_atlas(
        dataclasses.replace(content, comparison=record, renders={}), tmp_path / "atlas"
    )
    files = [path.name.lower() for path in (index.parent / "layers").iterdir()]
    assert len(set(files)) == len(names)
    assert len(list((index.parent / "units").iterdir())) == len(names) * len(layer.channels)


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


def test_the_headline_says_what_the_figures_say(content: AtlasContent) -> None:
    assert headline(content) == [
        "Tuning lifted accuracy on the 12 test pictures from 70.0% to 80.0% (paired 95% interval of the "
        "gain: −5.0 to +25.0 points).",
        "6 of the 12 channels compared changed more than drawing the same channel twice changes it, "
        "at a false discovery rate of 5%.",
        "The change is widest in blocks.4.2: 3 of 6 channels.",
        "blocks.2.1 was frozen: bit-identical in both networks.",
    ]
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


def test_an_atlas_without_a_comparison_is_whole(content: AtlasContent, tmp_path: Path) -> None:
    alone = dataclasses.replace(content, comparison=None, renders={})
    out = write_atlas(alone, tmp_path / "atlas").parent
    names = sorted(path.name for path in out.glob("*.html"))
    assert names == [
        f"{one}.html" for one in ("card", "data", "evaluation", "glossary", "index", "method")
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
    assert "noise floor" not in method


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
    titles = ["Overview", "Data", "Evaluation", "Model card", "Method", "Glossary"]
    assert [page.title for page in found] == titles
    assert len({page.order for page in found}) == len(found)
    for page in found:
        assert (TEMPLATES / f"{page.slug}.html.j2").is_file()
        assert page.file in pages
    for name, shown in pages.items():
        bar = shown.html[: shown.html.index("<main")]
        links = re.findall(r'href="(?:\.\./)?(\w+\.html)"[^>]*>\w', bar)
        assert links == ["index.html", *(page.file for page in found)], name


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
    assert "Robust" not in (out / "index.html").read_text(encoding="utf-8")


def test_errors_on_other_sets_reach_the_atlas(tmp_path: Path) -> None:
    root = tmp_path / "data"
    made_up = made.content(root)
    assert made_up.study is None or made_up.evaluation is not None
    predictions = made_up.predictions
    assert predictions is not None
    assert made_up.evaluation is not None
    study = error_study(predictions, split="street")
    other = OtherSet("street <b>", root, made_up.evaluation, study)
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


def test_every_page_links_to_the_words(tmp_path: Path) -> None:
    index = write_atlas(made.content(tmp_path / "data"), tmp_path / "atlas")
    pages = list(index.parent.rglob("*.html"))
    assert len(pages) > 5
    for page in pages:
        up = "../" * (len(page.relative_to(index.parent).parts) - 1)
        assert f'href="{up}glossary.html">What the words mean' in page.read_text(encoding="utf-8")
    words = (index.parent / "glossary.html").read_text(encoding="utf-8")
    assert "false discovery rate" in words
