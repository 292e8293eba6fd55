"""Cutting streaming Markdown: nothing is lost, nothing settled changes, and the tail stays short."""

from hypothesis import given
from hypothesis import strategies as st

from ralph_rpc.attach.streamed_markdown import LIMIT, Piece, StreamedMarkdown

WORDS = ["word", " ", "\n", "\n\n", "- item", "    indented", "# head", "a very much longer run of text. "]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=60).map("".join)


def grown(text: str, piece: int) -> StreamedMarkdown:
    markdown = StreamedMarkdown()
    for at in range(0, len(text), piece):
        markdown.add(text[at : at + piece])
    return markdown


@given(TEXTS, st.integers(1, 30))
def test_the_pieces_and_the_tail_are_the_text(text: str, piece: int) -> None:
    markdown = grown(text, piece)
    whole = "\n".join([*(part.text for part in markdown.pieces), markdown.tail.text])
    assert whole.split() == text.split()
    markdown.end()
    assert "\n".join(part.text for part in markdown.pieces).split() == text.split()


@given(TEXTS, st.integers(1, 30))
def test_where_the_text_was_cut_by_the_stream_does_not_matter(text: str, piece: int) -> None:
    assert grown(text, piece).pieces == grown(text, 1).pieces


def test_paragraphs_settle_at_blank_lines() -> None:
    markdown = grown("one\ntwo\n\nthree\n\nfour", 3)
    assert markdown.pieces == [Piece("one\ntwo\n", False)]
    assert markdown.tail.text == "three\n\nfour"


def test_a_code_fence_holds_together_over_blank_lines() -> None:
    markdown = grown("```python\na\n\nb\n```\n\nafter\n\n", 4)
    assert markdown.pieces == [Piece("```python\na\n\nb\n```\n", False)]


def test_a_fence_in_an_item_of_a_list_holds_together_too() -> None:
    markdown = grown("- ```python\na\n\nb\n```\n\nafter\n\n", 4)
    assert markdown.pieces == [Piece("- ```python\na\n\nb\n```\n", False)]


def test_what_is_indented_stays_with_the_item_above() -> None:
    markdown = grown("- one\n\n  more of one\n\nend\n", 5)
    assert markdown.pieces == [Piece("- one\n\n  more of one\n", False)]


def test_a_fence_that_goes_on_and_on_is_cut_into_fences() -> None:
    markdown = grown("~~~diff\n" + "+line\n" * 2_000, 24)
    assert len(markdown.pieces) > 2
    assert all(piece.text.startswith("~~~diff\n") and piece.text.endswith("\n~~~") for piece in markdown.pieces)
    assert [piece.glued for piece in markdown.pieces] == [False] + [True] * (len(markdown.pieces) - 1)
    assert sum(piece.text.count("+line") for piece in [*markdown.pieces, markdown.tail]) == 2_000


def test_the_tail_stays_short_whatever_comes() -> None:
    for text in ("x" * 50_000, "word " * 10_000, "line\n" * 10_000, "```\n" + "y" * 50_000):
        markdown = StreamedMarkdown()
        for at in range(0, len(text), 100):
            markdown.add(text[at : at + 100])
            assert len(markdown.tail.text) <= LIMIT + 200
