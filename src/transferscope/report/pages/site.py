"""A folder of pages: templates, the style sheet and the script, pictures as WebP files."""

from __future__ import annotations

import json
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import jinja2
from PIL import Image, ImageOps

from transferscope import wording
from transferscope.data.loading import cores
from transferscope.errors import PictureError
from transferscope.files import sha256_bytes
from transferscope.images import InputSpec, read_picture, to_picture
from transferscope.report.figures import style
from transferscope.report.questions import effect_words, excess_of

TEMPLATES = Path(__file__).parent / "templates"

THUMBNAIL = 160
"""Side of a thumbnail in pixels."""


_AT_ONCE = 32  # pictures that wait for a thread: memory stays flat in their number


def _encode(picture: Image.Image, path: Path, quality: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, format="WEBP", quality=quality, method=4)


def script_json(value: Any) -> str:
    """`value` as JSON that may stand within a script of a page: no name in it ends or begins an element."""
    return json.dumps(value).replace("<", "\\u003c")


def style_sheet() -> str:
    """The pages' rules, with the figures' two colours."""
    colours = f":root{{--base:{style.BASE_COLOUR};--tuned:{style.TUNED_COLOUR}}}\n"
    return colours + (TEMPLATES / "atlas.css").read_text(encoding="utf-8")


def _key(value: float | None) -> str:
    """A number that the pages' script sorts by; empty for none."""
    return "" if value is None or not math.isfinite(value) else f"{value:.5g}"


@dataclass(frozen=True)
class PagePicture:
    """A picture's file, relative to the pages' folder, or None with the reason in `words`.

    Attributes:
        file: None where there is no picture to show.
        words: what it shows, or why there is none.
        width: in pixels.
        height: in pixels.
    """

    file: str | None
    words: str
    width: int
    height: int


class Site:
    """Writes pages, and what they all need, under one folder; each picture once.

    Pictures are encoded by threads of its own: all are written when the block that it is the context of
    ends, and what failed there is raised.

    Args:
        folder: of the pages, new.
        root: folder of the data's own pictures.
        pictures: whether the data's own pictures are shown.
        view: how a network is given pictures, or None if that is not known.
    """

    def __init__(
        self,
        folder: Path,
        root: Path = Path(),
        *,
        pictures: bool = True,
        view: InputSpec | None = None,
    ):
        self.folder = folder
        self.root = root
        self.pictures = pictures
        self.view = view
        self._written: dict[str, PagePicture] = {}
        self._own_paths: dict[str, None] = {}
        self._workers = ThreadPoolExecutor(cores())
        self._encoding: deque[Future[None]] = deque()
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.filters.update(
            number=wording.number,
            percent=wording.percent,
            chance=wording.probability,
            signed=wording.signed,
            effect=effect_words,
            excess=excess_of,
            key=_key,
            address=partial(quote, safe="/"),
            link=partial(quote, safe="/#"),
        )
        self._environment.globals["thumbnail"] = self.thumbnail

    def __enter__(self) -> Site:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._workers.shutdown(cancel_futures=kind is not None)
        while kind is None and self._encoding:
            self._encoding.popleft().result()

    def write_assets(self) -> None:
        """The style sheet, with the figures' two colours, and the script."""
        (self.folder / "assets").mkdir()
        self._write("assets/atlas.css", style_sheet())
        self._write("assets/atlas.js", (TEMPLATES / "atlas.js").read_text(encoding="utf-8"))

    def write_index(self, entries: Sequence[tuple[str, str]]) -> None:
        """What the search looks through, as a script: no page may read other files of a folder.

        Args:
            entries: (words, address relative to the folder).
        """
        known = [(words, quote(address, safe="/#")) for words, address in entries]
        self._write("assets/index.js", f"window.atlasIndex = {script_json(known)};\n")

    def write_page(self, name: str, template: str, values: Mapping[str, Any]) -> None:
        """Renders `template` to the file `name`.

        Args:
            name: of the file, relative to the folder.
            template: file name without its endings.
            values: of the page, `title` and `navigation` among them; `root` and `page` are added for
                links, `own_pictures` for what is left out, `shown`, the slugs of the pages there are.
        """
        root = "../" * name.count("/")
        html = self._environment.get_template(f"{template}.html.j2").render(
            {"shown": (), "own_pictures": self.pictures, "picture_pages": {}} | dict(values),
            root=root,
            page=name,
        )
        self._write(name, html)

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A file name that is not UTF-8 reaches a page as lone surrogates: shown as "?".
        path.write_bytes(text.encode("utf-8", "replace"))

    # ------------------------------------------------------------------ pictures

    def save(self, picture: Image.Image, file: str, words: str, *, quality: int) -> PagePicture:
        """Writes a WebP file, with its transparency if it has any."""
        mode = "RGBA" if picture.mode == "RGBA" else "RGB"
        encoding = self._workers.submit(_encode, picture.convert(mode), self.folder / file, quality)
        self._encoding.append(encoding)
        if len(self._encoding) > _AT_ONCE:
            self._encoding.popleft().result()
        return PagePicture(file, words, *picture.size)

    def thumbnail(self, path: str, root: Path | None = None) -> PagePicture:
        """A centre crop of one of the data's own pictures, or of another set's, whose folder is `root`."""
        if not self.pictures:
            return PagePicture(None, "picture left out", THUMBNAIL, THUMBNAIL)
        identity = f"{root}/{path}" if root else path
        name = sha256_bytes(identity.encode("utf-8", "surrogateescape"))[:20]
        file = f"images/pictures/{name}.webp"
        return self._own((root or self.root) / path, file, path, THUMBNAIL, crop=True)

    def as_seen(self, path: str, side: int = THUMBNAIL) -> PagePicture:
        """One of the data's own pictures cut and scaled as the network is given it, or as a thumbnail."""
        view = self.view
        if view is None or not self.pictures:
            return self.thumbnail(path)

        def made() -> Image.Image:
            picture = to_picture(view.load(self.root / path)).convert("RGB")
            picture.thumbnail((side, side), Image.Resampling.LANCZOS)
            return picture

        name = sha256_bytes(path.encode("utf-8", "surrogateescape"))[:20]
        size = "" if side == THUMBNAIL else f"-{side}"
        file = f"images/seen/{name}{size}.webp"
        try:
            return self.once(file, path, made, quality=82, own=path)
        except PictureError:
            return self._written.setdefault(
                file, PagePicture(None, "picture not found", side, side)
            )

    def once(
        self,
        file: str,
        words: str,
        make: Callable[[], Image.Image],
        *,
        quality: int,
        own: str | None = None,
    ) -> PagePicture:
        """`save` of what `make` gives, which is asked when the file is first asked for.

        Args:
            file, words, quality: as there.
            make: the picture.
            own: path of the data's own picture that is in it, or None.
        """
        if file not in self._written:
            self._written[file] = self.save(make(), file, words, quality=quality)
            if own is not None:
                self.shows(own)
        return self._written[file]

    def shows(self, path: str | Path) -> None:
        """Notes that one of the data's own pictures is in some picture of the pages."""
        self._own_paths[str(path)] = None

    def write_own_list(self) -> None:
        """Lists the data's own pictures that the folder holds, small or whole, for whoever gives it away."""
        lines = sorted(self._own_paths)
        self._write("assets/own_pictures.txt", "".join(f"{line!r}\n" for line in lines))

    def small(self, path: str, side: int) -> Image.Image:
        """The middle of one of the data's own pictures, RGB of `side` pixels a side; nothing is written.

        Raises:
            PictureError: it cannot be read.
        """
        picture = read_picture(self.root / path, least_side=2 * side)
        self.shows(path)
        return ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)

    def whole(self, source: Path, file: str, words: str, *, side: int) -> PagePicture:
        """One of the data's own pictures uncropped, at most `side` pixels a side, as `file`."""
        return self._own(source, file, words, side, crop=False)

    def _own(self, source: Path, file: str, words: str, side: int, *, crop: bool) -> PagePicture:
        if file in self._written:
            return self._written[file]
        try:
            picture = read_picture(source, least_side=2 * side if crop else side)
        except PictureError:
            found = PagePicture(None, "picture not found", side, side)
        else:
            if crop:
                picture = ImageOps.fit(picture, (side, side), Image.Resampling.LANCZOS)
            else:
                picture.thumbnail((side, side))
            self.shows(
                source.relative_to(self.root) if source.is_relative_to(self.root) else source
            )
            found = self.save(picture, file, words, quality=82 if crop else 80)
        return self._written.setdefault(file, found)
