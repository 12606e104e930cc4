"""Read text files with ratings and scores: UTF-8 text, and tables with a header."""

import csv
import hashlib
import io
import re
import reprlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import read_regular

SEPARATORS = ",;\t"

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
"""The start of a formula, or of one that already has apostrophes."""

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)

COLUMNS_NAMED = 20
"""How many columns a message lists at most."""


def read_text(path: Path, expected: str) -> tuple[str, str]:
    """The content of a text file without its byte order mark, and the SHA-256 of its bytes.

    Raises:
        UserError: the file cannot be read or is not UTF-8.
    """
    try:
        content = read_regular(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}; expected {expected}") from error
    try:
        if b"\0" in content:
            raise ValueError("binary")
        return content.decode("utf-8-sig"), hashlib.sha256(content).hexdigest()
    except ValueError as error:
        raise UserError(f"{path}: not UTF-8 text; expected {expected}; save the file as UTF-8") from error


def table_rows(path: Path, text: str) -> Iterator[tuple[int, list[str]]]:
    """The line number and the stripped cells of each non-empty row, starting with the header.

    The separator is whichever of comma, semicolon, and tab occurs most often in the first line, outside quotes.

    Raises:
        UserError: a quote is not closed.
    """
    first = next((line for line in io.StringIO(text, newline=None) if line.strip()), "")
    separator = max(SEPARATORS, key=re.sub(r'"[^"]*"', "", first).count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        for cells in reader:
            stripped = [plain_cell(cell.strip()) for cell in cells]
            if any(stripped):
                yield reader.line_num, stripped
    except csv.Error as error:
        raise UserError(
            f"{path}: damaged at line {reader.line_num} ({error}); expected a CSV table with balanced quotes"
        ) from error


def csv_text(header: Sequence[object], rows: Iterable[Sequence[object]], line_end: str = "\n") -> str:
    """A comma-separated table with one line per row."""
    return "".join(_line(cells) + line_end for cells in (header, *rows))


def _line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text).writerow(safe_row(cells))  # with its own line end, it quotes cells that contain a part of one
    return text.getvalue().removesuffix("\r\n")


def safe_row(cells: Sequence[object]) -> list[object]:
    """The cells with an apostrophe before each text that a spreadsheet would run as a formula."""
    return [f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell for cell in cells]


def plain_cell(cell: str) -> str:
    """A cell of a table as it was before `safe_row`."""
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _is_formula(cell: str) -> bool:
    return _FORMULA.match(cell) is not None and not _NUMBER.fullmatch(cell)


def shown_columns(header: list[str]) -> str:
    """The column names of a table, formatted for a message."""
    more = ", ..." if len(header) > COLUMNS_NAMED else ""
    return ", ".join(reprlib.repr(cell) for cell in header[:COLUMNS_NAMED]) + more or "none"
