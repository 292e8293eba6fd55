"""The three forms of a report: the same facts in each, and nothing in them that could act."""

import json
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ralph_rpc.report import as_json, html, markdown, plots
from ralph_rpc.report.gather import gather
from tests.faults import hostile
from tests.report import past

TAGS = {
    "html",
    "head",
    "meta",
    "link",
    "title",
    "style",
    "body",
    "main",
    "header",
    "aside",
    "footer",
    "p",
    "div",
    "span",
    "h1",
    "h2",
    "ul",
    "li",
    "dl",
    "dt",
    "dd",
    "details",
    "summary",
    "pre",
    "figure",
    "figcaption",
    "svg",
    "g",
    "line",
    "rect",
    "i",
    "table",
    "caption",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "br",
    "a",
}
ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
EVIL = (
    "</style></title></pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'` onmouseover=alert(1) "
    "{{ 7777*7777 }}{% raw %} [click](javascript:alert(1)) <!-- --> | `` \x1b]52;c;cm0=\x07\x1b[2J\x9b31m\u202egnp.\u2066\x85\u2028\x7f\r\n# end\n"
)


class Page(HTMLParser):
    """What a page consists of."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]


def assert_inert(text: str) -> None:
    """The page has only our elements, no handlers, and only links to files."""
    page = Page(text)
    assert set(page.tags) <= TAGS
    assert ACTING.findall(text) == []
    for name, value in page.attributes:
        assert not name.startswith("on") and name != "src"
        assert name != "href" or value.startswith("file:///") or value == "data:,"


def test_the_page_tells_all_facts_and_needs_nothing_else(tmp_path: Path) -> None:
    text = html.render(gather(past.evening(tmp_path)))
    for told in (
        "Completed (verified) after 24 iterations",
        "$7.63",
        "scripted/scripted-1",
        "529: Overloaded",
        "Leave the HTML blocks for last.",
        "delivered in iteration 3",
        "the loop ended first",
        "runner lost",
        "test_pipes",
        "no sign of life",
        "pytest -q",
        "1 crashed",
    ):
        assert told in text
    assert "http" not in re.sub(r'http-equiv="Content-Security-Policy"', "", text)
    assert "default-src 'none'" in text and "<script" not in text
    assert_inert(text)


def test_the_page_of_a_ticket_loop_has_a_row_per_ticket(tmp_path: Path) -> None:
    text = html.render(gather(past.backlog(tmp_path)))
    tickets = text[text.index('id="tickets"') : text.index('id="iterations"')]
    assert tickets.count("<tr>") == 5
    assert "needs-merge" in tickets and "ralph/night/ab-7" in tickets and tickets.count('href="file:///') == 5


def test_hostile_texts_are_inert_in_the_page(tmp_path: Path) -> None:
    text = html.render(gather(past.poisoned(tmp_path, EVIL)))
    assert_inert(text)
    usual = html.render(gather(past.poisoned(tmp_path / "usual", "word")))
    assert sorted(Page(text).tags) == sorted(Page(usual).tags), "no text has made or ended an element"
    assert "60481729" not in text, "no text is taken for a part of the template"


def test_hostile_texts_are_inert_in_markdown(tmp_path: Path) -> None:
    text = markdown.render(gather(past.poisoned(tmp_path, EVIL)))
    assert ACTING.findall(text) == []
    outside = re.sub(r"^(`{3,})text\n.*?^\1$", "", text, flags=re.DOTALL | re.MULTILINE)
    assert "<" not in outside and re.search(r"(?<!\\)(\]\(|`|# end)", outside) is None
    for table in re.findall(r"(?:^\|.*\n)+", outside, re.MULTILINE):
        columns = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(columns) == 1


def test_a_fence_in_a_text_does_not_end_the_fence_around_it(tmp_path: Path) -> None:
    loop = past.Past(tmp_path)
    text = markdown.render(gather(loop.finish(lastText="```\n````\n# not a heading")))
    assert "`````text\n```\n````\n# not a heading\n`````" in text


def test_the_json_form_is_json_with_every_text_as_it_was(tmp_path: Path) -> None:
    text = as_json.render(gather(past.poisoned(tmp_path, EVIL)))
    assert ACTING.findall(text) == []
    told = json.loads(text)
    assert told["summary"]["lastText"] == EVIL and told["iterations"][0]["summary"] == EVIL
    assert EVIL[:200] in [tool["name"] for tool in told["tools"]]
    assert {
        "generatedAt",
        "summary",
        "gaps",
        "iterations",
        "tickets",
        "tools",
        "messages",
        "failures",
        "life",
    } <= told.keys()


def test_markdown_has_the_same_rows_as_json(tmp_path: Path) -> None:
    facts = gather(past.evening(tmp_path))
    told = json.loads(as_json.render(facts))
    parts = dict(part.split("\n", 1) for part in markdown.render(facts).split("\n## ")[1:])
    for title, key in (
        ("Iterations", "iterations"),
        ("Tools", "tools"),
        ("Failures and warnings", "failures"),
        ("Messages and commands", "messages"),
    ):
        assert parts[title].count("\n|") - 2 == len(told[key])


def test_half_of_a_surrogate_pair_can_be_written(tmp_path: Path) -> None:
    loop = past.Past(tmp_path)
    loop.log += b'{"type":"ralph_notice","at":1,"level":"error","message":"\\ud83d"}\n'
    facts = gather(loop.finish())
    for render in (html.render, markdown.render, as_json.render):
        assert render(facts).encode()


@pytest.mark.parametrize("seed", range(20))
def test_any_text_anywhere_is_inert_in_every_form(tmp_path: Path, seed: int) -> None:
    rng = random.Random(seed)
    text = "".join(
        hostile.text(rng) + rng.choice(["<a>", "'", '"', "&lt;", "-->", "]]>", "{{", "%}", "|", "`"]) for _ in range(3)
    )
    facts = gather(past.poisoned(tmp_path, text))
    assert_inert(html.render(facts))
    assert ACTING.findall(markdown.render(facts)) == ACTING.findall(as_json.render(facts)) == []


def test_a_loop_that_has_done_nothing_yet_has_a_report(tmp_path: Path) -> None:
    facts = gather(past.Past(tmp_path).finish(status="running", endedAt=None, stopReason=None))
    assert "No iteration has ended yet." in html.render(facts)
    assert markdown.render(facts).startswith("# parser: crashed\n")


def test_thousands_of_iterations_share_bars_and_the_page_says_which_it_lists(tmp_path: Path) -> None:
    loop = past.Past(tmp_path)
    loop.work()
    paths = loop.finish()
    facts = gather(paths)
    (one,) = facts.iterations
    many = [{**one, "iteration": number} for number in range(1, 2_501)]
    text = html.render(
        type(facts)(**{**{name: getattr(facts, name) for name in type(facts).__slots__}, "iterations": many})
    )
    assert "The last 1000 of 2500" in text
    assert text.count('class="ok" x=') <= plots.MOST_BARS * 2 + html.MOST_ROWS
    assert "Iterations 1 to 13:" in text


def test_bars_stack_their_parts_up_to_the_highest() -> None:
    columns = [plots.StackedBar([("a", 1), ("b", 3)], "one"), plots.StackedBar([("a", 2)], "two <")]
    drawn = plots.bars(columns, "t")
    heights = [float(height) for height in re.findall(r'height="([\d.]+)"/>', drawn)]
    assert heights == [25, 75, 50]
    assert "two &lt;" in drawn


def test_bars_of_nothing_are_no_division_by_zero() -> None:
    assert "<svg" in plots.bars([plots.StackedBar([("a", 0)], "one")], "t")
    assert "<svg" in plots.strip([], "t")


def test_the_strip_shortens_pauses_and_puts_what_ran_at_once_below_each_other() -> None:
    hour = 3_600_000
    spans = [
        plots.Span(0, hour, "ok", "1"),
        plots.Span(100 * hour, 101 * hour, "ok", "2"),
        plots.Span(100 * hour, 101 * hour, "ok", "3"),
    ]
    places = [
        tuple(map(float, place))
        for place in re.findall(r'x="([\d.]+)" y="([\d.]+)" width="([\d.]+)"', plots.strip(spans, "t"))
    ]
    assert [y for _, y, _ in places] == [1, 1, 19]
    assert places[0][2] == pytest.approx(1_000 / 2.12, abs=1) and places[1][0] == places[2][0]
