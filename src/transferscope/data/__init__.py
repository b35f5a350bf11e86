"""Sets of pictures: what a folder holds, how it is divided, batches of it, and the demo set."""

from transferscope.data.demo import (
    CHARACTERS,
    CONFUSABLE,
    FAMILIES,
    SIDE,
    STRIP_LENGTH,
    FontFamily,
    draw_character,
    write_demo_set,
)
from transferscope.data.loading import in_order, load_batches
from transferscope.data.scan import SPLITS, UNREADABLE_CAP, Picture, Scan, scan
from transferscope.data.split import (
    Split,
    duplicates_across,
    make_split,
    parse_ratio,
    read_split,
    write_split,
)

__all__ = [
    "CHARACTERS",
    "CONFUSABLE",
    "FAMILIES",
    "SIDE",
    "SPLITS",
    "STRIP_LENGTH",
    "UNREADABLE_CAP",
    "FontFamily",
    "Picture",
    "Scan",
    "Split",
    "draw_character",
    "duplicates_across",
    "in_order",
    "load_batches",
    "make_split",
    "parse_ratio",
    "read_split",
    "scan",
    "write_demo_set",
    "write_split",
]
