"""What results show of themselves in a notebook: a small panel of HTML that runs and requests nothing.

A record's `_repr_html_` gives its sentences, rows and pictures to `panel`, which escapes and bounds them.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

LIMIT = 200_000
"""Bytes of a panel, whatever names it holds."""

# Sentences, and letters of one: an escaped letter takes six bytes at most.
_SENTENCES, _SENTENCE = 24, 700
_ROWS, _CELL = 30, 60
_SIDE = 224  # of a picture, in pixels

_BOX = "font-family:inherit;max-width:60em;line-height:1.45"
_TABLE = "border-collapse:collapse;margin:.5em 0;font-variant-numeric:tabular-nums"


def panel(
    title: str,
    *,
    sentences: Sequence[str] = (),
    columns: Sequence[str] = (),
    rows: Sequence[Sequence[str]] = (),
    pictures: Sequence[tuple[NDArray[np.uint8], str]] = (),
) -> str:
    """HTML of at most `LIMIT` bytes: a title, pictures, a table and sentences.

    Args:
        title: what it is.
        sentences: a paragraph each; long ones and many are cut short.
        columns: of the table; names that begin with a dash are of numbers, and right-aligned.
        rows: of the table, a text a column.
        pictures: (uint8 (H, W) or (H, W, 3), what it shows), reduced to a small size.
    """
    parts = [f"<p><strong>{_text(title, _SENTENCE)}</strong></p>"]
    parts += ["".join(_figure(*one) for one in pictures)]
    if rows:
        parts.append(_table(columns, rows))
    parts += [f"<p>{_text(one, _SENTENCE)}</p>" for one in sentences[:_SENTENCES]]
    if len(sentences) > _SENTENCES:
        parts.append(f"<p>And {len(sentences) - _SENTENCES} more sentences.</p>")
    html = f'<div style="{_BOX}">{"".join(parts)}</div>'
    assert len(html.encode()) <= LIMIT, f"{len(html.encode())} bytes are too many for a notebook"
    return html


def _table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    right = [name.startswith("-") for name in columns]
    head = "".join(
        _cell("th", name.removeprefix("-"), at) for name, at in zip(columns, right, strict=True)
    )
    lines = [
        "".join(_cell("td", cell, at) for cell, at in zip(row, right, strict=True))
        for row in rows[:_ROWS]
    ]
    if len(rows) > _ROWS:
        lines.append(f'<td colspan="{len(right)}">and {len(rows) - _ROWS:,} more</td>')
    body = "".join(f"<tr>{line}</tr>" for line in lines)
    return f'<table style="{_TABLE}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def _cell(kind: str, text: str, right: bool) -> str:
    side = "right" if right else "left"
    return (
        f'<{kind} style="text-align:{side};padding:.1em .8em .1em 0">{_text(text, _CELL)}</{kind}>'
    )


def _figure(picture: NDArray[np.uint8], words: str) -> str:
    said = _text(words, _CELL)
    return (
        '<figure style="display:inline-block;margin:0 1em .5em 0">'
        f'<img src="{_url(picture)}" alt="{said}"><figcaption>{said}</figcaption></figure>'
    )


def _text(text: str, most: int) -> str:
    """Escaped, cut short, and without what is no character, as of a file name that is no UTF-8."""
    short = text if len(text) <= most else f"{text[: most - 1]}…"
    return escape(
        "".join(c if c.isprintable() else " " for c in short.encode("utf-8", "replace").decode())
    )


def _url(picture: NDArray[np.uint8]) -> str:
    image: Any = Image.fromarray(picture).convert("RGB")
    image.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
    held = io.BytesIO()
    image.save(held, "WEBP", quality=85, method=4)
    return f"data:image/webp;base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
