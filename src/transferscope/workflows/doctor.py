"""`diagnose`: what this machine has, for a bug report."""

from __future__ import annotations

import os
import shutil
from typing import Any

from transferscope.acceleration.precision import fast_bf16, find_device
from transferscope.backbones.catalogue import EMBEDDED, embedded_weights
from transferscope.machine import cache_dir, environment


def diagnose() -> dict[str, Any]:
    """What this machine has, for a bug report: versions, devices, arithmetic, weights, cache."""
    record = environment()
    device = find_device()
    folder = cache_dir()
    existing = next(p for p in (folder, *folder.parents) if p.exists())
    return {
        **record.pop("packages"),
        "python": record["python"],
        "system": record["system"],
        "cores": os.cpu_count(),
        "torch threads": record["threads"],
        "cpu features": ", ".join(record["cpu"]) or "none that matter",
        "device": str(device),
        "bf16 is fast here": "yes" if fast_bf16(device) else "no",
        "embedded weights": ", ".join(n for n, e in EMBEDDED.items() if embedded_weights(e)),
        "cache": str(folder),
        "cache can be written": "yes" if os.access(existing, os.W_OK) else "no",
        "free disk, GB": round(shutil.disk_usage(existing).free / 1e9, 1),
    }
