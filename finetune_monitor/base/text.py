"""Text for pages and terminals: escaped words, Markdown tables, numbers of things."""

from collections.abc import Sequence

PUNCTUATION = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|~$#&"})


def escaped(text: str) -> str:
    """Text that means nothing to Markdown, on one line; characters that cannot be seen become a replacement mark."""
    quiet = visible(" ".join(text.split())).translate(PUNCTUATION)
    return quiet.replace("://", ":\\//")  # GitHub makes a link of every address


def visible(text: str) -> str:
    """A mark in place of every character that cannot be seen, such as one that would command a terminal."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def printable(text: str) -> str:
    """File names may hold bytes that are no text, which a terminal does not take."""
    return text.encode(errors="backslashreplace").decode()


def counted(n: int, noun: str) -> str:
    """A number of things, in the plural where there is not one."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


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
