"""Headless Chromium for tests: the system's, else one of Playwright's own below `.cache/browser` of the checkout."""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

CACHE = Path(__file__).parents[2] / ".cache" / "browser"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL_S = 100


@functools.cache
def _provided() -> str | None:
    """What stands in the way; a failure is not tried again."""
    if any(map(shutil.which, NAMES)):
        return None
    try:
        done = subprocess.run(
            [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"],
            check=False,
            timeout=INSTALL_S,
            capture_output=True,
            text=True,
            env={**os.environ, "PLAYWRIGHT_BROWSERS_PATH": str(CACHE)},
        )
    except subprocess.TimeoutExpired:
        return f"playwright has not installed one in {INSTALL_S} s"
    return None if done.returncode == 0 else (done.stderr or done.stdout).strip()[-300:]


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser of the test's own. Where none can be had the test is skipped, with the reason."""
    trouble = _provided()
    if trouble is not None:
        pytest.skip(f"no Chromium (apt-get install chromium): {trouble}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PLAYWRIGHT_BROWSERS_PATH", str(CACHE))
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=next(filter(None, map(shutil.which, NAMES)), None))
            try:
                yield browser
            finally:
                browser.close()
