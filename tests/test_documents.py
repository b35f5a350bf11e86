"""What the documents say can be followed: links, pictures and commands."""

from __future__ import annotations

import re
import shlex
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer

from documents import identify, pages, sections
from transferscope.cli import app


@pytest.mark.parametrize("page", pages(), ids=identify)
def test_links_lead_somewhere_and_emphasis_is_closed(page: Path):
    for section in sections(page):
        assert "*" not in "".join(section.prose), section.anchor  # "**词。**词" is no emphasis
        for target in (*section.links, *section.pictures):
            path, _, fragment = target.partition("#")
            file = page.parent / path if path else page
            if "://" not in target:
                assert file.is_file(), target
                assert not fragment or fragment in [one.anchor for one in sections(file)], target


@cache
def commands() -> dict[str, Any]:
    return typer.main.get_command(app).commands


@pytest.mark.parametrize("page", pages(), ids=identify)
def test_commands_are_taken_with_their_options(page: Path):
    """Everything but the work: the verb, its options, their choices and ranges."""
    verbs = commands()
    for line in (line for section in sections(page) for line in section.code):
        for verb, rest in re.findall(r"(?:^|[|] |-m )transferscope (\w+)(.*)", line.strip()):
            verbs[verb].make_context(verb, shlex.split(rest))
