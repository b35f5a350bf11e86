"""SVG written directly: small figures of which a page, or thousands of pages, have some."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

WIDTH = 360
"""Of every such figure, in pixels: a telephone shows it whole."""

SIDE = 10.0
"""Margins to the left and right, in pixels."""


def document(height: float, title: str, marks: Iterable[str]) -> str:
    """A figure in the page's own colours."""
    name = escape(title)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{name}" width="{WIDTH}" '
        f'height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}" style="color:inherit">'
        f"<title>{name}</title>{''.join(marks)}</svg>\n"
    )


def text(x: float, y: float, words: str, *, size: float = 12, anchor: str = "start") -> str:
    """Words; smaller ones are muted."""
    muted = ' opacity="0.75"' if size < 12 else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="currentColor"{muted} '
        f'style="font-size: {size}px">{escape(words)}</text>'
    )


def upright(x: float, y: float, half: float, colour: str, width: float, opacity: float) -> str:
    """A vertical line around y."""
    return line((x, y - half), (x, y + half), colour, width, opacity)


def line(
    start: tuple[float, float],
    end: tuple[float, float],
    colour: str = "currentColor",
    width: float = 1,
    opacity: float = 1,
) -> str:
    """A straight line."""
    return (
        f'<line x1="{start[0]:.1f}" y1="{start[1]:.1f}" x2="{end[0]:.1f}" y2="{end[1]:.1f}" '
        f'stroke="{colour}" stroke-width="{width}" opacity="{opacity}"/>'
    )


def swatch(x: float, y: float, colour: str, opacity: float) -> str:
    """A small bar of a legend."""
    return (
        f'<rect x="{x:.1f}" y="{y:.1f}" width="14" height="9" fill="{colour}" opacity="{opacity}"/>'
    )


def dot(x: float, y: float, colour: str, *, full: bool = True, radius: float = 4.5) -> str:
    """A dot, or a ring."""
    kind, inside = ("full", colour) if full else ("empty", "none")
    return (
        f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" fill="{inside}" '
        f'stroke="{colour}" stroke-width="2"/>'
    )
