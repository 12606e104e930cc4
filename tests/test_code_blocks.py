"""Every code block of the documentation is right: commands parse, configs are valid, Python and cheap commands run."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml

from finetune_monitor import FaceSimilarity
from finetune_monitor.base.yaml_files import override
from finetune_monitor.cli import main, make_parser
from finetune_monitor.metrics.thresholds import Buckets, Thresholds, weights_of, write_thresholds
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.training.config import validated
from support.code_blocks import LANGUAGES, Block, blocks_of, commands_in, pages
from support.page_folders import write_run
from support.places import ROOT
from support.tiny import stable_diffusion

PAGES = pages()
WITH_PYTHON = [page for page in PAGES if page.name not in ("style.md", "CONTRIBUTING.md") and blocks_of(page, "python")]
"""style.md has excerpts; the example in CONTRIBUTING.md runs in test_documents.py."""

WITH_COMMANDS = [page for page in PAGES if blocks_of(page, "sh")]
YAML = [block for page in PAGES for block in blocks_of(page, "yaml")]

RUNS = ("config", "show", "compare", "report", "label plan", "label export", "aesthetic score")
"""Commands of ours that need recorded runs and the demo's models at most, and take no more than seconds."""

BASE = ROOT / "configs/sd15_lora.yaml"
"""What a YAML block with a part of a config is put into."""


def name_of(value: Block | Path) -> str:
    return value.place if isinstance(value, Block) else str(value.relative_to(ROOT))


@pytest.fixture
def clone(tmp_path, photos, monkeypatch) -> Path:
    """The working directory that the documentation speaks of: a clone with photos."""
    for name in ("assets", "configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "photos").mkdir()
    for name in ("ana", "others"):
        (tmp_path / "photos" / name).symlink_to(photos)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(sys.modules, "my_module", sys)  # whatever a block imports under this name goes in the end
    del sys.modules["my_module"]
    return tmp_path


def write_agreement(folder: Path) -> None:
    """The thresholds.json of a study on the photos."""
    weights = weights_of(FaceSimilarity("photos/ana", recognizer="dlib").describe().weights)
    folder.mkdir()
    buckets = Buckets(np.array([0.1, 0.2, 0.3, 0.4]), 1.0)
    write_thresholds(
        folder / "thresholds.json", [Thresholds("face_similarity", buckets, "exact", 2.0, 3, 8, 24, weights)]
    )


def write_modules(page: Path, folder: Path) -> None:
    """Python blocks that open with the name of a file, as such files."""
    for block in blocks_of(page, "python"):
        if name := re.match(r"# (\w+\.py)\n", block.text):
            (folder / name[1]).write_text(block.text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_block_has_a_language_that_is_looked_at(page):
    assert {block.language for block in blocks_of(page)} <= LANGUAGES


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_python_blocks_run_one_after_another(page, clone):
    write_modules(page, clone)
    write_agreement(clone / "agreement")
    write_run(clone / "runs/ben", {0: 0.1, 300: 0.4})
    names = {"pipe": stable_diffusion(), "loader": range(2), "train_step": lambda batch: 0.0}
    for block in blocks_of(page, "python"):
        exec(compile(block.text, block.place, "exec"), names)


def test_excerpts_in_the_style_guide_are_in_the_package():
    sources = [squeezed(path.read_text()) for path in (ROOT / "finetune_monitor").rglob("*.py")]
    for block in blocks_of(ROOT / "docs/style.md", "python"):
        assert any(squeezed(block.text) in source for source in sources), block.place


def squeezed(code: str) -> str:
    """Without spaces, and without the commas that only long lines have."""
    return re.sub(r",(?=[)\]}])", "", re.sub(r"\s", "", code))


@pytest.mark.parametrize("block", YAML, ids=name_of)
def test_yaml_blocks_are_valid(block, clone):
    content = yaml.safe_load(block.text)
    page = ROOT / block.place.partition(":")[0]
    write_modules(page, clone)
    if content is None:  # a comment alone
        assert block.text in BASE.read_text()
    elif "base" in content:
        (clone / "sweep.yaml").write_text(block.text)
        load_sweep(clone / "sweep.yaml")
    else:
        validated(joined(yaml.safe_load(BASE.read_text()), content), clone)


def joined(whole: dict, part: dict) -> dict:
    """The part's keys over those of the whole; what is no mapping is replaced."""
    for key, value in part.items():
        nested = isinstance(value, dict) and isinstance(whole.get(key), dict)
        whole[key] = joined(whole[key], value) if nested else value
    return whole


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=name_of)
def test_shell_commands_are_right_and_cheap_ones_run(page, clone, capsys):
    for run in ("ana", "ana-rank64", "ben"):
        write_run(clone / "runs" / run, {0: 0.1, 300: 0.4, 900: 0.5})
    (clone / "heads/ava").mkdir(parents=True)
    (clone / "heads/ava/head.safetensors").symlink_to(ROOT / "assets/demo/aesthetic_head.safetensors")
    for block in blocks_of(page, "sh"):
        for words in commands_in(block):
            CHECKS[words[0]](words)


def check_ours(words: list[str]) -> None:
    words = words[: words.index(">")] if ">" in words else words
    chosen = make_parser().parse_args(words[1:])
    if words[1] == "train":
        check_config(chosen.config, chosen.overrides)
    if words[1] == "sweep":
        load_sweep(chosen.sweep, chosen.overrides)
    if words[1] in RUNS or " ".join(words[1:3]) in RUNS:
        assert main(words[1:]) == 0


def check_launch(words: list[str]) -> None:
    """`accelerate launch` and `torchrun` start train.py, or the command's module."""
    rest = words[words.index("-m") + 2 :] if "-m" in words else ["train", *words[words.index("train.py") + 1 :]]
    check_ours(["finetune-monitor", *rest])


def check_config(path: Path, overrides: list[str]) -> None:
    content = yaml.safe_load(path.read_text())
    for change in overrides:
        override(content, change)
    validated(content, path.parent)


def check_make(words: list[str]) -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words[1:]) <= set(targets)


def check_pip(words: list[str]) -> None:
    extras = re.findall(r"^(\w+) = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    named = [name for word in words if word.startswith(".[") for name in word[2:-1].split(",")]
    assert set(named) <= set(extras)


def check_python(words: list[str]) -> None:
    assert (ROOT / words[1]).is_file()


def check_environment(words: list[str]) -> None:
    """A variable before a command."""
    CHECKS[words[1]](words[1:])


CHECKS: dict[str, Callable[[list[str]], object]] = {
    "finetune-monitor": check_ours,
    "accelerate": check_launch,
    "torchrun": check_launch,
    "make": check_make,
    "pip": check_pip,
    "python": check_python,
    "ACCELERATE_USE_CPU=true": check_environment,
    **dict.fromkeys(("git", "cd", "rm", "touch", "ssh", "tensorboard", "wandb", "hf"), lambda words: None),
}
"""By the first word of a command; a command that is not here fails the test."""
