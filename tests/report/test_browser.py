"""The page in a real browser: quiet, readable on a phone, in light and in dark, and deaf to what it quotes."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from ralph_rpc.files.paths import LoopPaths
from ralph_rpc.report import html
from ralph_rpc.report.gather import gather
from tests.report import past
from tests.report.browser import chromium
from tests.report.picture import IMAGE, picture
from tests.report.test_render import EVIL

pytestmark = [pytest.mark.usefixtures("no_leftovers"), pytest.mark.timeout(240)]
LOOPS: dict[str, Callable[[Path], LoopPaths]] = {
    "evening": past.evening,
    "backlog": past.backlog,
    "hostile": lambda project: past.poisoned(project, EVIL + "x" * 3_000),
}

LEAST_CONTRAST = """() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (c) => c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const c = channels(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return light(c);
    }
    return 1;
  };
  let least = [21, ""];
  for (const e of document.querySelectorAll("main *")) {
    if (e.closest("svg") || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const [a, b] = [light(channels(getComputedStyle(e).color)), behind(e)].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < least[0]) least = [ratio, e.outerHTML.slice(0, 100)];
  }
  return least;
}"""


@pytest.fixture
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


def written(folder: Path, loop: str) -> str:
    """The address of a loop's page."""
    page = folder / f"{loop}.html"
    page.write_text(html.render(gather(LOOPS[loop](folder / "project"))))
    return page.as_uri()


def opened(browser: Browser, address: str, width: int = 1_100, scheme: str = "light") -> tuple[Page, list[str]]:
    """The page, and everything that it complained of or asked the network for."""
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme="dark" if scheme == "dark" else "light"
    )
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
    page.on("request", lambda request: trouble.append(f"request: {request.url}"))
    page.goto(address)
    return page, [one for one in trouble if one not in (f"request: {address}", "request: data:,")]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_page_is_silent_and_as_wide_as_a_phone(browser: Browser, tmp_path: Path, loop: str) -> None:
    page, trouble = opened(browser, written(tmp_path, loop), width=375)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true })")
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    assert page.evaluate("document.body.scrollWidth") <= 375
    assert trouble == []


@pytest.mark.parametrize("loop", ["evening", "backlog"])
def test_no_table_is_cut_on_a_small_screen(browser: Browser, tmp_path: Path, loop: str) -> None:
    page, _ = opened(browser, written(tmp_path, loop), width=1_200)
    wide = "[...document.querySelectorAll('.scroll')].filter((one) => one.scrollWidth > one.clientWidth)"
    assert page.evaluate(f"{wide}.map((one) => [one.getAttribute('aria-labelledby'), one.scrollWidth])") == []


def test_the_axis_of_a_chart_ends_under_its_last_bar(browser: Browser, tmp_path: Path) -> None:
    page, _ = opened(browser, written(tmp_path, "backlog"))
    ends = page.evaluate("""() => [...document.querySelectorAll('.charts figure')].map((figure) => {
      const bars = [...figure.querySelectorAll('rect')].map((bar) => bar.getBoundingClientRect().right);
      return [Math.max(...bars), figure.querySelector('.axis').getBoundingClientRect().right];
    })""")
    assert len(ends) == 3 and all(abs(bar - axis) < 15 for bar, axis in ends), ends


def test_what_a_page_quotes_does_nothing(browser: Browser, tmp_path: Path) -> None:
    page, trouble = opened(browser, written(tmp_path, "hostile"))
    assert page.locator("script, img, iframe, object, form, base").count() == 0
    assert (
        page.evaluate(
            "[...document.querySelectorAll('*')].some((e) => [...e.attributes].some((a) => a.name.startsWith('on')))"
        )
        is False
    )
    assert "<script>alert(1)</script>" in page.inner_text("h1")
    assert page.evaluate("document.fonts.status") == "loaded"
    assert trouble == []


@pytest.mark.parametrize("loop", ["evening", "backlog"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(browser: Browser, tmp_path: Path, loop: str, scheme: str) -> None:
    """4.5 : 1, as WCAG AA asks of small text."""
    page, _ = opened(browser, written(tmp_path, loop), scheme=scheme)
    ratio, where = page.evaluate(LEAST_CONTRAST)
    assert ratio >= 4.5, where


def test_dark_is_dark_and_light_is_light(browser: Browser, tmp_path: Path) -> None:
    address = written(tmp_path, "evening")
    shots = []
    for scheme, ground in (("light", "rgb(251, 251, 249)"), ("dark", "rgb(20, 23, 26)")):
        page, _ = opened(browser, address, scheme=scheme)
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == ground
        shots.append(page.screenshot())
    assert shots[0] != shots[1]


@pytest.mark.parametrize("loop", ["evening", "backlog"])
def test_a_page_can_be_read_without_seeing_it(browser: Browser, tmp_path: Path, loop: str) -> None:
    page, _ = opened(browser, written(tmp_path, loop))
    assert page.locator("html[lang=en]").count() == page.locator("h1").count() == page.locator("main").count() == 1
    tables = page.locator("table").count()
    assert tables >= 4
    assert (
        page.locator("table > caption").count()
        == page.locator("table > thead th[scope=col]:first-child").count()
        == tables
    )
    assert page.locator("svg[role=img][aria-label]").count() == page.locator("svg").count() == 4
    assert page.locator("[role=region][tabindex='0']").count() == tables
    for region in page.locator("[role=region]").all():
        assert page.locator(f"#{region.get_attribute('aria-labelledby')}").count() == 1
    ids: list[str] = page.evaluate("[...document.querySelectorAll('[id]')].map((one) => one.id)")
    assert len(ids) == len(set(ids))


def test_a_session_link_leads_to_the_file(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "a b#c?%"
    folder.mkdir()
    page, _ = opened(browser, written(folder, "backlog"))
    link = page.locator("#iterations ~ .scroll a").first
    assert link.get_attribute("rel") == "noopener"
    address = link.evaluate("one => one.href")
    page.goto(address)
    assert page.inner_text("body").strip() == "{}"


def test_the_picture_for_the_readme_is_small(browser: Browser, tmp_path: Path) -> None:
    assert len(picture(browser, tmp_path)) < 200_000
    assert IMAGE.stat().st_size < 200_000
