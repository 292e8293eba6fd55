"""Tables: columns under their titles, whatever is in them."""

import re

from ralph_rpc.terminal.table import Column, table
from ralph_rpc.terminal.width import width


def test_columns_stand_under_their_titles_two_spaces_apart() -> None:
    drawn = table([Column(["a", "long"], "NAME"), Column(["7", "12"], "N", right=True), Column(["", "x"])], False)
    assert drawn == "NAME   N\na      7\nlong  12  x"


def test_a_table_without_titles_has_no_line_for_them() -> None:
    assert table([Column(["a", "bb"]), Column(["x", "y"])], False) == "a   x\nbb  y"


def test_wide_and_combining_characters_keep_the_columns_in_line() -> None:
    kinds = ["日本語です", "日本", "task", "e\u0301", "👨\u200d👩\u200d👧"]
    lines = table([Column(kinds, "KIND"), Column(["end"] * 5, "STATUS")], False).splitlines()
    assert {width(line[: line.index("end")]) for line in lines[1:]} == {lines[0].index("STATUS")}


def test_colours_take_no_room_and_titles_are_bold() -> None:
    columns = [Column(["ok", "bad"], "STATE", styles=[None, "red"]), Column(["1", "2"], "N")]
    coloured = table(columns, True)
    assert "\x1b[1mSTATE\x1b[0m" in coloured and "\x1b[31mbad  \x1b[0m" in coloured
    assert re.sub(r"\x1b\[\d+m", "", coloured) == table(columns, False)


def test_on_a_narrow_terminal_the_column_that_gives_way_keeps_its_end() -> None:
    columns = [Column(["/a/very/long/path/to/api"], "PROJECT", gives_way=True), Column(["running"], "STATUS")]
    assert table(columns, False, terminal_columns=22).splitlines()[1] == "…/path/to/api  running"
    assert table(columns, False, terminal_columns=5).splitlines()[1] == "…path/to/api  running"
    assert "/a/very/long" in table(columns, False)


def test_a_cell_that_is_too_wide_pushes_only_its_own_row() -> None:
    columns = [Column(["1", "x" * 9], most=4), Column(["default", "--verify"])]
    assert table(columns, False).splitlines() == ["1     default", "xxxxxxxxx  --verify"]
