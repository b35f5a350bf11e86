"""What a frozen network makes of pictures, computed once: caches, the linear probe, exemplars.

Everything below the freeze boundary is a function of the weights and the picture alone, so it is
stored under the hash of both and never computed again: for another seed, another split or another
strategy the features are found.
"""

from transferscope.features.exemplars import channel_means, channel_responses
from transferscope.features.extraction import (
    FEATURE_VERSION,
    POOLED,
    SHARD,
    Extracted,
    View,
    boundary_rows,
    cached_pictures,
    extract,
    mean_of,
    planned_bytes,
)
from transferscope.features.probe import STRENGTHS, Probe, fit_probe
from transferscope.features.store import FeatureStore, Rows, cache_budget

__all__ = [
    "FEATURE_VERSION",
    "POOLED",
    "SHARD",
    "STRENGTHS",
    "Extracted",
    "FeatureStore",
    "Probe",
    "Rows",
    "View",
    "boundary_rows",
    "cache_budget",
    "cached_pictures",
    "channel_means",
    "channel_responses",
    "extract",
    "fit_probe",
    "mean_of",
    "planned_bytes",
]
