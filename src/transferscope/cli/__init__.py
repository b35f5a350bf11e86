"""The command line: names, options and JSON keys here are a contract.

Data goes to stdout, logs and progress to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130
interrupted. Rooms are imported inside the verbs, so that `--help` does not load torch.
"""

from __future__ import annotations

import os
import sys

# ruff: noqa: F401 (importing the file of a verb registers it, in the order of `transferscope --help`)
from transferscope.cli import (  # isort: skip
    demo,
    inspect,
    advise,
    tune,
    evaluate,
    predict,
    layers,
    activations,
    explain,
    visualize,
    ideal,
    dream,
    attack,
    robustness,
    compare,
    shortcuts,
    atlas,
    serve,
    export,
    backbones,
    doctor,
)
from transferscope.cli.app import app, say_error
from transferscope.terminal import patient_streams


def main() -> None:
    """Entry point of the console script.

    Before torch is loaded, its OpenMP threads are told to wait for each other asleep rather than
    spinning. On cores of its own that costs nothing; beside another program on a two-core machine,
    spinning was measured to slow a network down nine times.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    patient_streams()
    try:
        app()
    except Exception as error:  # noqa: BLE001 - what a verb does not catch, such as a full disk under stdout
        say_error(error)
        sys.exit(1)
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
