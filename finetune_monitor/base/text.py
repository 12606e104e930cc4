"""Markdown from numbers and foreign text: escaped words, tables, values with their intervals."""

from collections.abc import Sequence

PUNCTUATION = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|~$#&"})


def escaped(text: str) -> str:
    """Text that means nothing to Markdown, on one line; characters that cannot be seen become a replacement mark."""
    return (
        visible(" ".join(text.split())).translate(PUNCTUATION).replace("://", ":\\//")
    )  # GitHub makes a link of every address


def visible(text: str) -> str:
    """A mark in place of every character that cannot be seen, such as one that would command a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str] | None = None) -> str:
    """A Markdown table; its cells are escaped already. All but the first column are numbers unless `align` is given."""
    lines = [header, align or ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def encoded(content: str) -> bytes:
    """UTF-8; what a file name holds beyond Unicode is written as an escape."""
    return content.encode("utf-8", "backslashreplace")


def first_line(text: str, longest: int = 160) -> str:
    """The beginning of a text that may be a whole traceback."""
    line = next(iter(text.strip().splitlines()), "")
    return line if len(line) <= longest else line[: longest - 1] + "…"
