"""The verb `doctor`."""

from __future__ import annotations

from transferscope.cli.app import app, print_json, table, verb
from transferscope.cli.options import Json


@app.command()
@verb
def doctor(json_: Json = False) -> None:
    """Say what this machine has: versions, devices, fast arithmetic, weights, caches."""
    from transferscope.workflows.doctor import diagnose

    found = diagnose()
    if json_:
        print_json(found)
        return
    table(("what", "found"), [(name, str(value)) for name, value in found.items()])
