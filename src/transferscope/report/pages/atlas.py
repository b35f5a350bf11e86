"""The atlas: a folder of static pages that opens by double click, without a server or the net.

    index.html            how good it is and what it learned, in words, figures and pairs of drawings
    layers/LAYER.html     every channel of a layer that was compared
    units/LAYER-N.html    one channel that was drawn: both networks' drawings, exemplars and all figures
    evaluation.html       how good the classifier is, how far to trust it, where it errs
    pictures.html         pictures that were evaluated, some of them; below it a page each, pictures/N.html
    strangers.html        how well pictures of none of the classes are told, if that was measured
    robustness.html       what base and tuned stand, if that was measured
    explanations.html     photographs with what an answer comes from, if any were kept
    card.html             the model card, as it is written for the Hub
    data.html             what the pictures are, if they were inspected
    glossary.html         what the words mean
    method.html           what a channel is asked, the controls, and what the intervals mean
    images/ assets/       WebP pictures; the style sheet and the script

Without a comparison there are no layers and units. Links are relative, text is UTF-8 in any script,
and every name is escaped where it enters a page.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from transferscope.comparison.records import NETWORKS
from transferscope.files import replaced_folder
from transferscope.report.pages.content import AtlasContent
from transferscope.report.pages.pictures import picture_pages
from transferscope.report.pages.registry import all_pages
from transferscope.report.pages.site import Site
from transferscope.report.questions import QUESTIONS

if TYPE_CHECKING:
    import os

STATUS_WORDS = {
    "optimized": "The channel was driven to or beyond the best real picture.",
    "zero_gradient": "The channel stayed blocked: its ReLU was shut for every start tried, so the "
    "picture shows nothing.",
    "dead_on_data": "The channel stayed blocked, and no real picture excites it either.",
    "below_exemplar": "The render excites the channel less than the best real picture does: trust "
    "the real pictures more.",
    "non_finite": "The optimization left the numbers, so the picture shows nothing.",
}
"""What each render status means, for a reader."""


def write_atlas(
    content: AtlasContent, out: str | os.PathLike[str], *, pictures: bool = True
) -> Path:
    """Writes the atlas as the folder `out`, whole or not at all.

    The same content gives the same bytes.

    Args:
        content: what to show.
        out: a new folder, an empty one, or an earlier atlas, which is replaced.
        pictures: False leaves out the data folder's own pictures (exemplars, errors, samples) and
            their names, so that the atlas can be given to people who must not see them. Renders stay.

    Returns:
        The path of index.html.

    Raises:
        OutputError: `out` holds files that are not ours, or cannot be written.
        InputError: two drawings of the comparison have the same layer, channel and sign.
    """
    out = Path(out)
    with (
        replaced_folder(out) as folder,
        Site(folder, content.data_root, pictures=pictures, view=content.view) as site,
    ):
        (folder / "images/pictures").mkdir(parents=True)
        site.write_assets()
        sections = {page: page.make(content, site) for page in all_pages()}
        shown = {page: section for page, section in sections.items() if section is not None}
        shared = {
            "title": content.title,
            "content": content,
            "comparison": content.comparison,
            "networks": NETWORKS,
            "called": dict(zip(NETWORKS, _pair(content), strict=True)),
            "questions": QUESTIONS,
            "status_words": STATUS_WORDS,
            "shown": {page.slug for page in shown},
            "picture_pages": picture_pages(content, site),
            "navigation": [(page.file, page.title) for page in shown],
        }
        pages = [(page.title, page.file) for page in shown]
        site.write_index([*pages, *(entry for one in shown.values() for entry in one.index)])
        for page, section in shown.items():
            site.write_page(page.file, page.slug, shared | dict(section.values))
            for file, (template, values) in section.below.items():
                site.write_page(file, template, shared | dict(values))
        site.write_own_list()  # templates ask for thumbnails while they are filled in
    return out / "index.html"


def _pair(content: AtlasContent) -> tuple[str, ...]:
    """What the two networks are called; the evaluation's are always the run's own."""
    return content.comparison.pair if content.comparison else NETWORKS
