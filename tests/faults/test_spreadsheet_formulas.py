"""Names that a spreadsheet would run as formulas are escaped in every CSV, and read back as they were."""

import csv
import io
import json
import re
import subprocess
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune_monitor.base.csv_files import plain_cell, safe_row, table_rows
from finetune_monitor.cli import main
from finetune_monitor.studies.agreement.rating_files import read_rating_files
from finetune_monitor.studies.labeling import PAGE
from finetune_monitor.studies.labeling.ratings import Rating, to_csv
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.studies.labeling.tasks import TASKS, read_plan, write_plan
from support.label_plans import write_small_plan

NAMES = [
    '=HYPERLINK("http://127.0.0.1/?"&A1)',
    "+1+1",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1",
    "\r=1",
    "'=1",
    "''@x",
    "=",
    "-",
]

DANGEROUS = ("=", "+", "-", "@", "\t", "\r")


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_begins_like_a_formula(name):
    [_, row] = csv.reader(io.StringIO(to_csv([Rating("image", name, "aesthetic", 3)]), newline=""))
    assert not row[1].startswith(DANGEROUS)
    assert row[1] == f"'{name}"


@given(st.text() | st.sampled_from(NAMES))
def test_a_cell_is_read_back_as_it_was(text):
    assert plain_cell(str(safe_row([text])[0])) == text


@pytest.mark.parametrize("value", [-1, -0.5, 3, "-0.5", "+3", "-1e-05", "a-b", "", None, "'quoted"])
def test_numbers_and_other_texts_stay(value):
    assert safe_row([value]) == [value]


@pytest.mark.parametrize("name", [name for name in NAMES if name == name.strip()])
def test_ratings_are_exported_and_read_with_their_names(name, tmp_path):
    write_small_plan(tmp_path / "plan")
    store = RatingStore(tmp_path / "plan" / RATINGS)
    store.create()
    task = read_plan(tmp_path / "plan").tasks[0]
    store.add("key", Rating(task.image_id, name, task.metric, 4))
    assert main(["label", "export", str(tmp_path / "plan"), "-o", str(tmp_path / "ratings.csv")]) == 0
    text = (tmp_path / "ratings.csv").read_text()
    rows = [cells for _, cells in table_rows(tmp_path / "ratings.csv", text)]
    assert rows[1][1] == name
    [rating] = read_rating_files([tmp_path / "ratings.csv"]).ratings
    assert rating.labeler == name
    assert f",{name}," not in text


def test_the_tasks_of_people_with_such_names_are_read_back(tmp_path):
    plan = write_small_plan(tmp_path / "plan")
    tasks = tuple(replace(task, person="=cmd") for task in plan.tasks)
    write_plan(tmp_path / "other", replace(plan, tasks=tasks, references={"=cmd": ()}))
    assert {task.person for task in read_plan(tmp_path / "other").tasks} == {"=cmd"}
    assert ",=cmd," not in (tmp_path / "other" / TASKS).read_text()


def test_the_page_that_labelers_keep_escapes_alike(tmp_path):
    """Its JavaScript is run by node where there is one; else its rule is compared."""
    source = (PAGE / "sources.js").read_text()
    function = source[source.index("function quoted") :]
    values = json.dumps(NAMES)
    script = f"{function}\nconsole.log(JSON.stringify({values}.map(quoted)));"
    try:
        found = json.loads(subprocess.run(["node", "-e", script], capture_output=True, text=True, check=True).stdout)
    except FileNotFoundError:
        assert re.search(r"\^'\*\[=\+\\-@\\t\\r\]", function)
        return
    cells = [next(csv.reader(io.StringIO(f"{cell}\n", newline="")))[0] for cell in found]
    assert cells == [f"'{name}" for name in NAMES]
