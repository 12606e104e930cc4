"""Read the text files that people keep their ratings and scores in: UTF-8, and tables with a header."""

import csv
import hashlib
import io
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from finetune_monitor.base.errors import UserError

SEPARATORS = ",;\t"

COLUMNS_NAMED = 20
"""Columns that a message names."""


def read_text(path: Path, expected: str) -> tuple[str, str]:
    """A text file's content, without a byte order mark, and the SHA-256 of its bytes.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected {expected}") from error
    try:
        if b"\0" in content:
            raise ValueError("binary")
        return content.decode("utf-8-sig"), hashlib.sha256(content).hexdigest()
    except ValueError as error:
        raise UserError(f"{path}: not text in UTF-8; expected {expected}; save it as UTF-8") from error


def table_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """Line number and stripped cells of each row that is not empty, the header first.

    The separator is the one of comma, semicolon and tab that the first line has most of, outside quotes.

    Raises:
        UserError: a quote is not closed.
    """
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    separator = max(SEPARATORS, key=re.sub(r'"[^"]*"', "", first).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            stripped = [cell.strip() for cell in cells]
            if any(stripped):
                yield reader.line_num, stripped
    except csv.Error as error:
        raise UserError(
            f"{path}: damaged at line {reader.line_num} ({error}); expected a CSV table whose quotes are closed"
        ) from error


def csv_text(header: Sequence[object], rows: Iterable[Sequence[object]]) -> str:
    """A table separated by commas, a line a row."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def shown_columns(header: list[str]) -> str:
    """The columns of a table, for a message."""
    more = ", ..." if len(header) > COLUMNS_NAMED else ""
    return ", ".join(reprlib.repr(cell) for cell in header[:COLUMNS_NAMED]) + more or "none"
