"""The picture of a report that the README shows: `python -m tests.report.picture` makes it anew."""

import tempfile
from pathlib import Path

from playwright.sync_api import Browser

from ralph_rpc.report import html
from ralph_rpc.report.gather import gather
from tests.report import past
from tests.report.browser import chromium

IMAGE = Path(__file__).parents[2] / "docs" / "img" / "report.png"
PROJECT = "/home/ada/markdown"


def picture(browser: Browser, folder: Path) -> bytes:
    """A PNG of the upper part of a page."""
    text = html.render(gather(past.evening(folder)))
    page = browser.new_page(viewport={"width": 1_000, "height": 1_320})
    page.set_content(text.replace(str(folder), PROJECT))
    return page.screenshot()


if __name__ == "__main__":
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        IMAGE.parent.mkdir(exist_ok=True)
        IMAGE.write_bytes(picture(browser, Path(folder)))
