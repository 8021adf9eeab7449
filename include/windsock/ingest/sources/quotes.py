"""Quotation marks in CSV: a stray one must not swallow the rows up to the next.

A reader of CSV takes whatever stands between two marks for one value, line ends included, so two stray ones make the
rows between them part of a value, without a word. This watches the bytes on their way to the reader and refuses a mark
that opens a value and is not closed before a delimiter or a line end, and a value that reads like whole rows. A mark
within a value that is not quoted (``5" pipe``) is a letter like others.
"""

import re
from typing import Any

import numpy as np

_MARK = 0x22
_LINE_END = re.compile(rb"\r\n|\n|\r")
_LINE_ENDS = b"\n\r"


class StrayQuote(Exception):
    """A quotation mark that does not do what one does; says in which line, and what is wrong."""


class QuoteWatch:
    """A binary stream of CSV, to be read by whoever reads CSV, that raises :class:`StrayQuote` where one passes."""

    closed = False

    def __init__(self, stream: Any, delimiter: str, columns: int) -> None:
        self._stream = stream
        self._delimiter = delimiter.encode()
        self._columns = columns
        self._rest = b""
        """What was read from the start of the last row that is not whole yet."""
        self._lines = 0
        """Lines before it."""

    def read(self, size: int = -1) -> bytes:
        """Read on; the end is looked at once there is nothing more."""
        block = bytes(self._stream.read(size))
        data = self._rest + block
        done = self._whole_rows(data, last=not block)
        self._lines, self._rest = self._lines + _lines(data[:done]), data[done:]
        return block

    def close(self) -> None:
        """Close the stream."""
        self._stream.close()

    def _whole_rows(self, data: bytes, *, last: bool) -> int:
        """Look at the marks in the data, which begin with a row; return where its last whole row ends."""
        end = len(data) if last else _after_line_end(data, 0, len(data))
        letters = np.frombuffer(b"\n" + data[:end] + b"\n", np.uint8)
        marks = np.flatnonzero(letters == _MARK)
        if len(marks) == 0 and b'"' not in data[end:]:
            return end
        # As nearly every file has it: marks around values, each on one line.
        edges = np.frombuffer(self._delimiter + _LINE_ENDS + b'"', np.uint8)
        paired = len(marks) % 2 == 0 and np.isin(letters[marks[::2] - 1], edges).all()
        if paired and np.isin(letters[marks[1::2] + 1], edges).all():
            breaks = np.flatnonzero(np.isin(letters, np.frombuffer(_LINE_ENDS, np.uint8)))
            if not (np.searchsorted(marks, breaks) % 2).any():
                return end
        return self._walk(data, last=last)

    def _walk(self, data: bytes, *, last: bool) -> int:
        """Do the same mark by mark."""
        marks = [found.start() for found in re.finditer(b'"', data)]
        row = end = column = n = 0
        while n < len(marks):
            start = marks[n]
            if start and data[start - 1] not in self._delimiter + _LINE_ENDS:
                n += 1
                continue
            row, column = self._place(data, end, start, row, column)
            n += 1
            while n + 1 < len(marks) and marks[n + 1] == marks[n] + 1:  # doubled: a mark within the value
                n += 2
            stop = marks[n] if n < len(marks) else len(data)
            if not last and stop + 1 >= len(data):
                return row
            after = data[stop + 1 : stop + 2]
            if stop == len(data) or (after and after not in self._delimiter + _LINE_ENDS):
                raise StrayQuote(self._sentence(data, start, "opens a value and is not closed at the end of one"))
            if self._reads_like_rows(data[start + 1 : stop], column):
                raise StrayQuote(self._sentence(data, start, "opens a value that reads like several rows"))
            end, n = stop + 1, n + 1
        return len(data) if last else self._place(data, end, len(data), row, column)[0]

    def _place(self, data: bytes, start: int, stop: int, row: int, column: int) -> tuple[int, int]:
        """Go on from row and column over a piece without quoted values."""
        begun = _after_line_end(data, start, stop)
        if begun:
            return begun, data.count(self._delimiter, begun, stop)
        return row, column + data.count(self._delimiter, start, stop)

    def _reads_like_rows(self, value: bytes, column: int) -> bool:
        """Say whether the lines of a value have as many delimiters as rows that were cut into at this column would."""
        first, *lines = (line.count(self._delimiter) for line in _LINE_END.split(value))
        if not lines or self._columns < 3 or self._delimiter + b" " in value:  # prose has blanks after its commas
            return False
        *between, final = lines
        whole = self._columns - 1
        return first == whole - column and final == column and all(count == whole for count in between)

    def _sentence(self, data: bytes, start: int, what: str) -> str:
        return f"line {self._lines + _lines(data[:start]) + 1}: a quotation mark {what}"


def _lines(data: bytes) -> int:
    return data.count(b"\n") or data.count(b"\r")


def _after_line_end(data: bytes, start: int, stop: int) -> int:
    """Return the place after the last line end of a piece, 0 if it has none."""
    return max(data.rfind(letter, start, stop) for letter in (b"\n", b"\r")) + 1
