"""The whole way of a user: a run, a plan, three people who rate in a browser, thresholds, and a run with stars."""

import csv
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from accelerate.state import AcceleratorState

from finetune_monitor.cli import main
from finetune_monitor.metrics.thresholds import read_thresholds
from finetune_monitor.record.history import read_run
from finetune_monitor.training.config import load_config
from finetune_monitor.training.run import run
from support.browser import opened_page, started_chromium
from support.places import DEMO

HEAD = {"clip": str(DEMO / "clip"), "pretrained": None, "head": str(DEMO / "aesthetic_head.safetensors")}
PEOPLE = ("Eva", "Max", "Ida")


def train(config: Path, folder: Path, *more: str) -> dict[tuple[int, str], dict[str, float]]:
    """A tiny run whose images the demo's aesthetic head scores; all scores by step and cell."""
    AcceleratorState._reset_state(reset_partial_state=True)  # as a new process would find it
    options = [f"output_dir={folder}", f"monitor.metrics.aesthetic={json.dumps(HEAD)}"]
    options += ["monitor.metrics.face_similarity=null"]
    options += ["monitor.stopping=[{rule: patience, metric: aesthetic, patience: 9}]"]
    options += ["monitor.grid.seeds=[0, 1, 2, 3]", "monitor.every=2"]
    assert run(load_config(config, [*options, *more])) == 0
    evaluations = read_run(folder).evaluations
    return {(e.step, image.cell.id): dict(image.scores) for e in evaluations for image in e.images}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of the real server, which ends as with Ctrl-C."""
    command = [sys.executable, "-m", "finetune_monitor.cli", "label", "serve", str(folder), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, bufsize=1) as process:
        try:
            assert process.stdout is not None
            found = next(filter(None, (re.search(r"http://\S+", line) for line in process.stdout)))
            yield found[0]
        finally:
            process.send_signal(2)
            process.wait(20)


def rate_all(page, address: str, name: str, label_of: dict[str, int]) -> None:
    """Rate every image by its key, as the person of this name would."""
    page.goto(address)
    page.get_by_label("Your name").fill(name)
    page.get_by_label("Your name").press("Enter")
    for place in range(len(label_of)):
        page.locator("#count", has_text=f"{place} of {len(label_of)}").wait_for()
        shown = page.locator("#stage img").get_attribute("src")
        page.wait_for_timeout(200)  # an answer in less is not taken
        page.keyboard.press(str(label_of[shown.rsplit("/", 1)[-1]]))
    page.get_by_role("heading", name="Thank you").wait_for()
    page.locator("#saved", has_text=re.compile("^Saved$")).wait_for()


@pytest.mark.slow
def test_from_a_run_through_people_to_a_run_with_stars(write_config, tmp_path, capsys):
    config, first, labels, report = write_config(), tmp_path / "first", tmp_path / "labels", tmp_path / "report"
    scores = train(config, first)
    assert main(["label", "plan", str(first), "-o", str(labels), "--per-person", "16", "--repeats", "0.1"]) == 0
    with (labels / "tasks.csv").open(newline="") as file:
        tasks = {row["image_id"]: scores[int(row["step"]), row["cell"]]["aesthetic"] for row in csv.DictReader(file)}
    edges = np.quantile(list(tasks.values()), [0.2, 0.4, 0.6, 0.8])
    with started_chromium() as browser, served(labels) as address:
        for shift, name in enumerate(PEOPLE):
            wanted = {
                image: int(np.clip(1 + np.searchsorted(edges, s) + shift // 2, 1, 5)) for image, s in tasks.items()
            }
            with opened_page(browser) as (page, watched):
                rate_all(page, address, name, wanted)
            assert not watched.complaints
    assert main(["label", "export", str(labels), "-o", str(tmp_path / "ratings.csv")]) == 0
    with (tmp_path / "ratings.csv").open(newline="") as file:
        rated = list(csv.DictReader(file))
    assert len(rated) == len(PEOPLE) * len(tasks)
    assert {row["image_id"]: int(row["label"]) for row in rated if row["labeler"] == PEOPLE[-1]} == wanted

    assert main(["agree", str(labels), "-o", str(report)]) == 0
    assert "aesthetic: agreement with a held-out labeler" in capsys.readouterr().out
    fitted = read_thresholds(report / "thresholds.json")["aesthetic"]
    assert fitted.weights is not None
    assert fitted.labelers == 3

    starred = train(config, tmp_path / "second", f"monitor.thresholds={report / 'thresholds.json'}")
    for image in starred.values():
        assert image["aesthetic_stars"] == fitted.stars(np.array([image["aesthetic"]]))[0]
    original = {key: image["aesthetic"] for key, image in starred.items()}
    assert original == {key: image["aesthetic"] for key, image in scores.items()}  # stars change nothing else
