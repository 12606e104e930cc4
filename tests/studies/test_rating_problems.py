"""Whatever was left out is counted in words and listed in one table, of the columns that its report has."""

from pathlib import Path

import pytest

from finetune_monitor.studies.rating_problems import PROBLEMS, Problem, ProblemKind, examples, left_out, write_problems

FOUND = [
    Problem(ProblemKind.BAD_ROW, "line 2", "found 3 columns, expected 4", Path("folder/a.csv")),
    Problem(ProblemKind.MISSING_IMAGE, "1, 2.jpg", "not found below images\udcff"),
    Problem(ProblemKind.BAD_ROW, "line 9", "found no image"),
    Problem(ProblemKind.NOT_RATED, "3.jpg", "without a rating"),
]


def test_kinds_are_counted_in_the_order_in_which_they_occur():
    assert left_out(FOUND) == "bad row: 2, missing image: 1, not rated: 1 (see problems.csv)"
    assert left_out([]) == "nothing"


def test_an_error_names_the_first_three():
    assert examples(FOUND) == [
        "line 2: found 3 columns, expected 4",
        "1, 2.jpg: not found below images\udcff",
        "line 9: found no image",
    ]


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        (("kind", "image", "detail"), ['bad row,line 2,"found', 'missing image,"1, 2.jpg",not']),
        (("kind", "file", "where", "detail"), ['bad row,a.csv,line 2,"found', 'missing image,,"1, 2.jpg",not']),
    ],
)
def test_the_table_has_a_line_for_each(tmp_path, columns, rows):
    write_problems(tmp_path, FOUND, columns)
    header, *lines = (tmp_path / PROBLEMS).read_text(encoding="utf-8").splitlines()
    assert header == ",".join(columns)
    assert len(lines) == 4
    assert all(line.startswith(row) for line, row in zip(lines, rows, strict=False))
    assert "images\\udcff" in lines[1]


def test_a_table_of_nothing_is_a_header(tmp_path):
    write_problems(tmp_path, [], ("kind", "image", "detail"))
    assert (tmp_path / PROBLEMS).read_text() == "kind,image,detail\n"
