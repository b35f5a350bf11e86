"""Sets of pictures: what one holds, how it is divided, batches of it, and the demo set.

What training does to its pictures is in `data.augmentation`, which loads torchvision.
"""

from transferscope.data.datasets import DATASETS
from transferscope.data.demo import (
    CHARACTERS,
    CONFUSABLE,
    FAMILIES,
    SIDE,
    STRIP_LENGTH,
    FontFamily,
    demo_fonts,
    draw_character,
    write_demo_set,
)
from transferscope.data.duplicates import (
    NearPair,
    dedupe,
    exact_duplicates,
    refuse_duplicates,
)
from transferscope.data.findings import Finding, findings, opening
from transferscope.data.inspection import THUMBNAIL, Inspection, PictureFacts, measured
from transferscope.data.loading import in_order, load_batches
from transferscope.data.lookalikes import MAX_EMBEDDED, near_by_embedding, near_duplicates
from transferscope.data.scan import (
    MEASURED_SIDE,
    SPLITS,
    Picture,
    Scan,
    refuse_unreadable,
    refuse_untrainable,
    scan,
)
from transferscope.data.split import (
    Split,
    adopt_split,
    make_split,
    parse_ratio,
    read_split,
    write_split,
)

__all__ = [
    "CHARACTERS",
    "CONFUSABLE",
    "DATASETS",
    "FAMILIES",
    "MAX_EMBEDDED",
    "MEASURED_SIDE",
    "SIDE",
    "SPLITS",
    "STRIP_LENGTH",
    "THUMBNAIL",
    "Finding",
    "FontFamily",
    "Inspection",
    "NearPair",
    "Picture",
    "PictureFacts",
    "Scan",
    "Split",
    "adopt_split",
    "dedupe",
    "demo_fonts",
    "draw_character",
    "exact_duplicates",
    "findings",
    "in_order",
    "load_batches",
    "make_split",
    "measured",
    "near_by_embedding",
    "near_duplicates",
    "opening",
    "parse_ratio",
    "read_split",
    "refuse_duplicates",
    "refuse_unreadable",
    "refuse_untrainable",
    "scan",
    "write_demo_set",
    "write_split",
]
