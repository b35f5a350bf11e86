"""A page as Chromium makes it, for tests of scripts; skipped where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def dom_of(address: str, profile: Path, *, milliseconds: int = 8000) -> str:
    """The document at an address, once its scripts had so much time of their own."""
    browser = next((path for name in NAMES if (path := shutil.which(name))), None)
    if browser is None and os.environ.get("CI"):
        pytest.fail("no chromium on this CI machine; install it ('apt-get install chromium')")
    if browser is None:
        pytest.skip("no chromium on this machine ('apt-get install chromium' brings it)")
    # fmt: off
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
        "--disable-background-networking", "--disable-component-update", "--disable-sync",
        f"--user-data-dir={profile}", f"--virtual-time-budget={milliseconds}", "--dump-dom", address,
    ]
    # fmt: on
    done = subprocess.run(command, capture_output=True, timeout=200, check=True)
    return done.stdout.decode("utf-8")
