"""Links between Markdown files of the repository, as links between pages of the site.

A file such as README.md is read in the repository and on the site. Its links name files of the repository; here they
are made to name the page that includes the file, or else the file itself.
"""

import posixpath
import re
from pathlib import Path
from typing import Any

DOCS = "docs"

PAGES = {
    "README.md": "quickstart",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
    "assets/demo/README.md": "models/demo",
    "assets/recognizers/dlib/README.md": "models/dlib",
    ".ci/MATRIX.md": "benchmarks/versions",
    "benchmarks/RESULTS.md": "benchmarks/speed",
    "benchmarks/COST.md": "benchmarks/cost",
    "benchmarks/SCALING.md": "benchmarks/scaling",
    "benchmarks/SIGNALS.md": "benchmarks/signals",
    "benchmarks/REPORT.md": "benchmarks/pages",
    "benchmarks/AESTHETICS.md": "benchmarks/aesthetics",
    "benchmarks/AGREEMENT.md": "benchmarks/agreement",
    "benchmarks/RELIABILITY.md": "benchmarks/reliability",
}
"""Files outside docs/, and the page that includes each."""

LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?(\))")


def rewrite_page(app: Any, docname: str, source: list[str]) -> None:
    """A page of docs/, before it is parsed."""
    source[0] = rewritten(source[0], posixpath.join(DOCS, docname))


def rewrite_included(app: Any, path: Path, docname: str, source: list[str]) -> None:
    """A file that a page includes; `path` is relative to docs/."""
    source[0] = rewritten(source[0], posixpath.normpath(posixpath.join(DOCS, path.as_posix())))


def rewritten(text: str, file: str) -> str:
    """The text with links that start at the site's root; `file` is where the links start from."""
    return LINK.sub(lambda found: found[1] + _target(found[2], file) + (found[3] or "") + found[4], text)


def _target(link: str, file: str) -> str:
    if link.startswith("/"):
        return link
    place = posixpath.normpath(posixpath.join(posixpath.dirname(file), link))
    if place in PAGES:
        return f"/{PAGES[place]}.md"
    return "/" + posixpath.relpath(place, DOCS)
