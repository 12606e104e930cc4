"""The code blocks of the documentation: where each stands, its language, and its text."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from support.places import ROOT

BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)

LANGUAGES = {"sh", "python", "yaml", "text", "diff", "", "{include}", "{literalinclude}", "{toctree}", "{eval-rst}"}
"""Those of blocks that are checked, of output and excerpts, which are not, and directives, which the site checks."""


@dataclass(frozen=True)
class Block:
    """One fenced block; `place` is file:line."""

    place: str
    language: str
    text: str


def pages() -> list[Path]:
    """Every Markdown file that people read."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]


def blocks_of(page: Path, *languages: str) -> list[Block]:
    """The blocks of a page, in their order; all, or those in some languages."""
    text = page.read_text()
    found = [
        Block(f"{page.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}", match[1].split(" ")[0], match[2])
        for match in BLOCK.finditer(text)
    ]
    return [block for block in found if not languages or block.language in languages]


def commands_in(block: Block) -> list[list[str]]:
    """The words of each command; comments are left out, lines that end in a backslash are joined."""
    lines = block.text.replace("\\\n", " ").splitlines()
    found = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [words for words in found if words]
