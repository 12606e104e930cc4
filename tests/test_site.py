"""The documentation builds without a warning, and says all that it must: keys, commands, names, links, lengths."""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

import finetune_monitor
from finetune_monitor.cli import make_parser
from finetune_monitor.training.config import Config
from finetune_monitor.training.describe import keys_of
from support import preloaded
from support.code_blocks import pages
from support.places import ROOT

LINK = re.compile(r"\]\(([^)\s]+)\)")

MOST_WORDS = 900
"""Of README.md: one screen and its images."""


class Links(HTMLParser):
    """What a page links to, and the places in it that others can link to."""

    def __init__(self, text: str):
        super().__init__()
        self.targets: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.places |= {value for name, value in attributes if name == "id"}
        self.targets += [value for name, value in found.items() if name in ("href", "src") and value]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    pytest.importorskip("furo", reason='needs the extra docs: pip install -e ".[docs]"')
    folder = tmp_path_factory.mktemp("site")
    options = ["-q", "-W", "-n", "--keep-going", "-b", "html"]
    command = [preloaded.python(), "-m", "sphinx", *options, "docs", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_every_internal_link_of_the_site_leads_somewhere(site):
    parsed = {path: Links(path.read_text()) for path in site.rglob("*.html")}
    broken = [
        f"{path.relative_to(site)}: {target}"
        for path, links in parsed.items()
        for target in links.targets
        if not leads_somewhere(path, target, parsed)
    ]
    assert broken == []


def leads_somewhere(path: Path, target: str, parsed: dict[Path, Links]) -> bool:
    """Whether a file is there, and the place in it; addresses of other sites are not looked at."""
    parts = urlsplit(target)
    if parts.scheme or parts.netloc:
        return True
    file = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if file not in parsed or not parts.fragment or path.name in ("search.html", "genindex.html"):
        return file.exists()
    return unquote(parts.fragment) in parsed[file].places


@pytest.mark.slow
def test_the_reference_has_every_key_command_and_exported_name(site):
    config, commands, api = ((site / f"reference/{name}.html").read_text() for name in ("config", "commands", "api"))
    assert [key.name for key in keys_of(Config) if f">{key.name.rpartition('.')[2]}<" not in config] == []
    names = [name for action in make_parser()._actions if action.choices for name in action.choices]
    assert [
        name
        for name in names
        if f">finetune-monitor {name}<" not in commands.replace('</span> <span class="pre">', " ")
    ] == []
    assert [name for name in finetune_monitor.__all__ if f'id="finetune_monitor.{name}"' not in api] == []


@pytest.mark.parametrize("page", pages(), ids=lambda path: str(path.relative_to(ROOT)))
def test_links_in_the_repository_lead_to_files(page):
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link and not link.startswith("#")]
    assert [link for link in links if not (page.parent / link.partition("#")[0]).exists()] == []


@pytest.mark.parametrize("page", ["intervals", "stopping"])
def test_measured_rates_are_those_of_the_benchmark(page):
    rates = re.findall(r"\d+\.\d(?= ?(?:%|to \d+\.\d ?%))", (ROOT / f"docs/concepts/{page}.md").read_text())
    measured = set(re.findall(r"\d+\.\d", (ROOT / "benchmarks/SIGNALS.md").read_text()))
    assert rates
    assert set(rates) <= measured


def test_the_readme_is_one_screen():
    assert len((ROOT / "README.md").read_text().split()) <= MOST_WORDS
