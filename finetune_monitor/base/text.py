"""Text for pages and terminals: escaping, Markdown tables, counts with their nouns."""

import hashlib
import re
from collections.abc import Sequence

PUNCTUATION = str.maketrans({char: f"\\{char}" for char in "\\`*_[]<>|~$#&"})


def escaped(text: str) -> str:
    """Text on one line with its Markdown escaped; invisible characters become a replacement character."""
    quiet = visible(" ".join(text.split())).translate(PUNCTUATION)
    return quiet.replace("://", ":\\//")  # GitHub turns every URL into a link


def visible(text: str) -> str:
    """Text with a replacement character for every invisible one, such as a terminal's control characters."""
    return "".join(char if char.isprintable() or char == "\n" else "\ufffd" for char in text)


def on_one_line(text: str) -> str:
    """Text on one line, with a replacement character for every invisible one."""
    return visible(text).replace("\n", "\ufffd")


def printable(text: str) -> str:
    """Text that a terminal can print: file names may contain bytes that are not valid text."""
    return text.encode(errors="backslashreplace").decode()


def counted(n: int, noun: str) -> str:
    """A count with its noun, in the plural unless the count is 1."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


ACRONYMS = re.compile(r"\b(clip|dino|sscd)\b")
"""Words in the names of scores that are written in capitals."""


def spoken(name: str) -> str:
    """A score's name in plain words: "clip_score" is "CLIP score"."""
    return ACRONYMS.sub(lambda found: found[0].upper(), name.replace("_", " "))


MOST_NAMED = 20


def some_of(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """The names, or the first of them with the number of the others."""
    more = [f"and {len(names) - most:,} more"] * (len(names) > most)
    return ", ".join([*names[:most], *more])


def table(header: Sequence[str], rows: Sequence[Sequence[str]], align: Sequence[str] | None = None) -> str:
    """A Markdown table of escaped cells. All columns but the first are right-aligned unless `align` is given."""
    lines = [header, align or ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def encoded(content: str) -> bytes:
    """The text in UTF-8; bytes of file names that are not valid Unicode are written as escapes."""
    return content.encode("utf-8", "backslashreplace")


def first_line(text: str, longest: int = 160) -> str:
    """The first line of a text that may be an entire traceback, shortened if it is long."""
    return shortened(next(iter(text.strip().splitlines()), ""), longest)


LONGEST_CAPTION = 600
"""Characters of a prompt that a view shows; a model reads about as many."""


def caption(prompt: str) -> str:
    """A prompt as views show it: a very long one is cut off, with a digest that keeps two of them apart."""
    if len(prompt) <= LONGEST_CAPTION:
        return prompt
    digest = hashlib.sha256(prompt.encode(errors="surrogatepass")).hexdigest()[:8]
    return f"{prompt[:LONGEST_CAPTION]}… ({len(prompt):,} characters, {digest})"


def shortened(text: str, longest: int = 160) -> str:
    """The text, with its end left out if it is longer than that."""
    return text if len(text) <= longest else text[: longest - 1] + "…"
