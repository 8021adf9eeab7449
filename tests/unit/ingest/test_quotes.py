"""Stray quotation marks in CSV: rows are never swallowed, and values that hold marks are read."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from examples import examples
from windsock.ingest.sources.parse import Unreadable, parse
from windsock.ingest.sources.quotes import QuoteWatch, StrayQuote

HEAD = "id,plan,seen\n"


def _watch(text: str, block: int) -> str:
    watch = QuoteWatch(io.BytesIO(text.encode()), ",", 3)
    try:
        while watch.read(block):
            pass
    except StrayQuote as err:
        return str(err)
    return ""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f'{HEAD}1,"pro,3\n4,x,5\n6,"pro,7\n', "line 2: a quotation mark opens a value and is not closed"),
        (f'{HEAD}0,x,1\n1,"pro,3\n4,x,5\n6,pro",7\n', "line 3: a quotation mark opens a value that reads like several"),
        (f'{HEAD}"1,x,3\n4",x,5\n', "line 2: a quotation mark opens a value that reads like several rows"),
        (f'{HEAD}1,x,"3\n4,x,5\n', "line 2: a quotation mark opens a value and is not closed"),
        (f'{HEAD}1,"a ""b" c,3\n', "line 2: a quotation mark opens a value and is not closed"),
        (f'{HEAD}1,"say \\"hi\\"",3\n', "line 2: a quotation mark opens a value and is not closed"),
        (f'{HEAD}1,5" pipe,3\n4,8" ""pipe"",5\n', ""),
        (f'{HEAD}1,"Dear all,\n\nthanks, bye",3\n"","",""\n', ""),
        (f'{HEAD}1,"a\r\n""b""",3\r\n4,"",5', ""),
    ],
)
def test_a_stray_mark_is_named_with_its_line_wherever_the_blocks_end(text: str, says: str) -> None:
    for block in (1, 2, 3, 5, 7, 11, 1000):
        assert _watch(text, block).startswith(says or "\n") == bool(says), block
    if says:
        with pytest.raises(Unreadable, match=says):
            parse(text.encode(), "csv", None)


_VALUES = st.text(st.sampled_from('ab5", \n'), max_size=6)


@examples(150)
@given(rows=st.lists(st.tuples(_VALUES, _VALUES, _VALUES), min_size=1, max_size=6), block=st.integers(1, 40))
def test_whatever_is_quoted_as_it_should_be_is_read_or_taken_for_rows(rows, block) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([["id", "plan", "seen"], *rows])
    text = buffer.getvalue()

    said = _watch(text, block)

    if said:
        assert "reads like several rows" in said
        assert any("\n" in value and "," in value for value in (",".join(row) for row in rows))
    else:
        read = parse(text.encode(), "csv", None).to_pylist()
        assert [tuple(value or "" for value in row.values()) for row in read] == rows


@examples(100)
@given(places=st.lists(st.integers(0, 10_000), min_size=1, max_size=3))
def test_marks_anywhere_in_a_file_never_make_a_row_of_several(places) -> None:
    whole = HEAD + "".join(f"{n},{'pro' if n % 2 else 'basic'},2026-03-01 10:00:{n:02d}\n" for n in range(20))
    text = whole
    for place in places:
        at = len(HEAD) + place % (len(text) - len(HEAD))
        text = f'{text[:at]}"{text[at:]}'

    try:
        rows = parse(text.encode(), "csv", None).num_rows
    except Unreadable:
        return
    assert rows == 20
