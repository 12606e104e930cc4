"""Ratings come in from every kind of file, what does not fit is told, and nothing but a `UserError` comes out."""

import json
import tempfile
import unicodedata
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune_monitor.base.errors import UserError
from finetune_monitor.studies.agreement.rating_files import Found, read_rating_files
from finetune_monitor.studies.agreement.rating_rows import moment
from finetune_monitor.studies.labeling.ratings import Rating, to_csv
from finetune_monitor.studies.rating_problems import NOTES, ProblemKind
from support import needs
from support.places import SHARED

REAL = SHARED / "ratings/avt_2022_per_rater.csv"
LONG = "image_id,labeler,metric,label,timestamp,duration_ms\n"
GOOD = ["a,Eva,m,4,,", "b,Eva,m,5,,", "c,Eva,m,1,,"]


@pytest.fixture
def read(tmp_path):
    """Reads one file with the given content; an object is written as JSON."""

    def read(content, metric=None, known=None) -> Found:
        path = tmp_path / "ratings"
        text = content if isinstance(content, (str, bytes)) else json.dumps(content)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        return read_rating_files([path], metric, known)

    return read


def plain(found: Found) -> list[tuple]:
    return [(rating.image_id, rating.labeler, rating.metric, rating.label) for rating in found.ratings]


def kinds(found: Found) -> list[ProblemKind]:
    return [problem.kind for problem in found.problems]


WORDS = st.text(st.characters(blacklist_categories=["C", "Z"], blacklist_characters="\x00"), min_size=1, max_size=6)
RATINGS = st.builds(
    Rating,
    WORDS,
    WORDS.map(partial(unicodedata.normalize, "NFC")),
    WORDS,
    st.integers(1, 5),
    st.datetimes().map(lambda time: time.isoformat() + "Z") | st.just("2026-01-02T03:04:05.678Z"),
    st.none() | st.integers(0, 10**6),
)


@settings(deadline=None)
@given(st.lists(RATINGS, min_size=1, max_size=8))
def test_our_own_table_comes_back_in_the_order_of_time(ratings):
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="") as file:
        file.write(to_csv(ratings))
        file.flush()
        found = read_rating_files([Path(file.name)])
    assert list(found.ratings) == sorted(ratings, key=lambda rating: moment(rating.timestamp))
    assert set(kinds(found)) <= {ProblemKind.SIMILAR_NAMES}


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("file,Rater,QUESTION,Score\na b.png,Eva,m,4\n", [("a b.png", "Eva", "m", 4)]),
        ("\ufefffilename;worker_id;dimension;answer\r\na;7;m;4.0\r\n", [("a", "7", "m", 4)]),
        ('"task_id"\t"user"\t"task"\t"value"\n"a\tb"\t"Eva"\t m \t" 4 "\n', [("a\tb", "Eva", "m", 4)]),
        ("\n\nitem,participant,rating\n\na,Eva,4.\n", [("a", "Eva", "given", 4)]),
        ("image,labeler,label,note,\na,Eva,+4,3,\n", [("a", "Eva", "given", 4)]),
        ("image_id,image,file,evaluator,label,score\na,b,c,Eva,4,0.3\n", [("a", "Eva", "given", 4)]),
        ('"x,y";label;annotator;image\n1;4;" Eva ";a\n', [("a", "Eva", "given", 4)]),
        ("study,rater,image,question,rating\n1,1,x/a.png,m,4\n", [("x/a.png", "1", "m", 4)]),
    ],
)
def test_a_long_table_is_known_by_its_columns(read, content, expected):
    found = read(content, metric="given")
    assert (plain(found), found.problems) == (expected, ())


@pytest.mark.parametrize(
    ("row", "kind", "detail"),
    [
        ("d,Eva,m,4.5,,", ProblemKind.UNKNOWN_LABEL, r"found the label '4\.5', expected a whole number from 1 to 5"),
        ("d,Eva,m,abc,,", ProblemKind.UNKNOWN_LABEL, "'abc'"),
        ("d,Eva,m,,,", ProblemKind.UNKNOWN_LABEL, "''"),
        ("d,Eva,m,NaN,,", ProblemKind.UNKNOWN_LABEL, "'NaN'"),
        ("d,Eva,m,1e0,,", ProblemKind.UNKNOWN_LABEL, "'1e0'"),
        ("d,Eva,m,\u0664,,", ProblemKind.UNKNOWN_LABEL, "\u0664"),
        ("d,Eva,m,6,,", ProblemKind.OUT_OF_RANGE, "'6'"),
        ("d,Eva,m,0,,", ProblemKind.OUT_OF_RANGE, "'0'"),
        ("d,Eva,m,-3,,", ProblemKind.OUT_OF_RANGE, "'-3'"),
        (f"d,Eva,m,1{'0' * 9000},,", ProblemKind.OUT_OF_RANGE, r"\.\.\."),
        ("d, ,m,4,,", ProblemKind.NO_LABELER, "no labeler"),
        (",Eva,m,4,,", ProblemKind.BAD_ROW, "no image"),
        ("d,Eva,,4,,", ProblemKind.BAD_ROW, "no metric"),
        ("d,Eva,m,4", ProblemKind.BAD_ROW, "4 columns, expected 6"),
        ("z,Eva,m,4,,", ProblemKind.UNKNOWN_IMAGE, "the image 'z'"),
    ],
)
def test_a_row_that_does_not_fit_is_left_out_and_told(read, row, kind, detail):
    found = read(LONG + "\n".join([GOOD[0], "", row, *GOOD[1:]]), known=list("abcd"))
    assert [image for image, *_ in plain(found)] == ["a", "b", "c"]
    (problem,) = found.problems
    assert (problem.kind, problem.where) == (kind, "line 4")
    with pytest.raises(UserError, match=detail):
        raise UserError(problem.detail)


def test_problems_of_all_files_are_told(tmp_path):
    rows = {"one": "d,Eva,m,6,,", "two": "d,Eva,m,x,,"}
    for name, row in rows.items():
        (tmp_path / name).write_text(LONG + "\n".join([*GOOD, row]))
    found = read_rating_files([tmp_path / "one", tmp_path / "two"])
    assert len(found.ratings) == 6
    assert [(problem.file.name, problem.where, problem.kind) for problem in found.problems] == [
        ("one", "line 5", ProblemKind.OUT_OF_RANGE),
        ("two", "line 5", ProblemKind.UNKNOWN_LABEL),
    ]
    assert read_rating_files([]) == Found((), ())


def test_columns_of_numbers_that_nobody_gave_are_no_labelers(tmp_path):
    path = tmp_path / "wide.csv"
    path.write_text("image,step,seed,size,a,b\n" + "\n".join(f"{i}.png,{300 * i},{i % 4 + 1},64,4,5" for i in range(8)))
    found = read_rating_files([path], "looks")
    assert {rating.labeler for rating in found.ratings} == {"a", "b"}
    assert [problem.where for problem in found.problems] == ["column step", "column seed", "column size"]
    assert {problem.kind for problem in found.problems} == {ProblemKind.IGNORED_COLUMN}


def test_all_files_that_cannot_be_used_stand_in_one_error(tmp_path):
    (tmp_path / "bad").write_text(LONG + GOOD[0] + "\n" + "d,Eva,m,9,,\n" * 4)
    (tmp_path / "good").write_text(LONG + GOOD[0])
    paths = [tmp_path / "bad", tmp_path / "good", tmp_path / "gone"]
    with pytest.raises(UserError) as error:
        read_rating_files(paths)
    lines = str(error.value).splitlines()
    assert lines[0] == "2 of 3 rating files are not usable:"
    assert f"{tmp_path}/bad: 4 of 5 ratings are not usable" in lines[1]
    assert [line.strip()[:9] for line in lines[2:5]] == ["- line 3:", "- line 4:", "- line 5:"]
    assert "gone: No such file" in lines[5]
    assert len(lines) == 6


def test_half_of_the_rows_may_be_bad(read):
    assert len(read(LONG + GOOD[0] + "\nd,Eva,m,9,,\n").ratings) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "the file is empty"),
        (" \n\r\n", "the file is empty"),
        (b"\x89PNG\0", "not UTF-8 text"),
        (LONG, "found no ratings"),
        (
            "image,rater\na,Eva\n",
            "found the columns 'image', 'rater'; expected one column per labeler.*or one column each",
        ),
        ("image,label\na,4\n", "found the columns 'image', 'label'; expected"),
        ("motif,rater,label\na,Eva,4\n", "found the columns 'motif', 'rater', 'label'; expected"),
        ("image,rater,label\na,Eva,4\n", "none of which states the metric.*--metric"),
        ("image,Eva,Jon\na,4,4\n", "none of which states the metric.*--metric"),
        ("image,rater,user,label\na,b,c,4\n", "both 'rater' and 'user' could be the labeler"),
        ("image,label,LABEL\na,4,4\n", "both 'label' and 'LABEL' could be the label"),
        ("image,rater,label,time,date\na,b,4,,\n", "both 'time' and 'date' could be the timestamp"),
        ("image,Eva\na,4\n", "found the columns 'image', 'Eva'; expected"),
        ("image,Eva,Jon\na,x,y\n", "found the columns 'image', 'Eva', 'Jon'; expected"),
        ("image,Eva,Eva\na,4,4\n", "two columns 'Eva'"),
        ("just some text\nof two lines\n", "found the columns 'just some text'; expected"),
        ('image,rater,label,metric\n"a,Eva,4,m\n', "damaged at line"),
        ("image,rater,label,metric\n" + "a" * 200_000 + ",Eva,4,m\n", "damaged at line 2"),
        ("[1, 2", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1, 2]", "different kind of JSON"),
        ("{}", "different kind of JSON"),
        ('[{"data": {}, "annotations": []}]', "found no ratings"),
        ('[{"annotator": null}]', "found no ratings"),
    ],
)
def test_what_holds_no_ratings_is_refused(read, content, reason):
    with pytest.raises(UserError, match=f"ratings: (?s:.*){reason}"):
        read(content)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("image,Eva,Jon\na,4,\nb,,5.0\n", [("a", "Eva", "m", 4), ("b", "Jon", "m", 5)]),
        ("file;r2;r10\na;1;2\n", [("a", "r2", "m", 1), ("a", "r10", "m", 2)]),
        ("metric,Eva,image,Jon\nn,4,a,5\n", [("a", "Eva", "n", 4), ("a", "Jon", "n", 5)]),
    ],
)
def test_a_wide_table_has_a_column_a_labeler(read, content, expected):
    found = read(content, metric="m")
    assert (plain(found), found.problems) == (expected, ())


def test_what_does_not_fit_a_wide_table_is_told(read):
    rows = ["a,a cat,4,x,7,,1", "b,a dog,6,5,8,,2", "c,no", ",a hen,3,2,9,,3", "d,,1,2,1,,4", "e,,3,,,,5"]
    found = read("image,prompt,Eva,Jon,,Ann,date\n" + "\n".join(rows), "m")
    assert plain(found) == [
        ("a", "Eva", "m", 4),
        ("b", "Jon", "m", 5),
        ("d", "Eva", "m", 1),
        ("d", "Jon", "m", 2),
        ("e", "Eva", "m", 3),
    ]
    assert [(problem.kind, problem.where) for problem in found.problems] == [
        (ProblemKind.IGNORED_COLUMN, "column prompt"),
        (ProblemKind.IGNORED_COLUMN, "column 5"),
        (ProblemKind.UNKNOWN_LABEL, "line 2, column Jon"),
        (ProblemKind.OUT_OF_RANGE, "line 3, column Eva"),
        (ProblemKind.BAD_ROW, "line 4"),
        (ProblemKind.BAD_ROW, "line 5, column Eva"),
        (ProblemKind.BAD_ROW, "line 5, column Jon"),
    ]


@pytest.mark.parametrize(
    ("given_time", "expected"),
    [
        ("2026-01-02T03:04:05.678Z", "2026-01-02T03:04:05.678Z"),
        ("2026-01-02 03:04:05", "2026-01-02T03:04:05+00:00"),
        ("2026-01-02T05:04:05.1234567+02:00", "2026-01-02T03:04:05.123456+00:00"),
        ("2026-01-02T03:04:05.9Z", "2026-01-02T03:04:05.9Z"),
        ("0001-01-01T00:00:00+14:00", ""),
        ("last Monday", ""),
        ("", ""),
    ],
)
def test_times_are_in_utc_or_not_known(read, given_time, expected):
    found = read(f"{LONG}a,Eva,m,4,{given_time},\n")
    assert found.ratings[0].timestamp == expected
    assert kinds(found) == ([ProblemKind.UNREADABLE_TIME] if given_time and not expected else [])


@pytest.mark.parametrize(("text", "ms"), [("1200", 1200), ("1200.6", 1201), ("", None), ("-1", None), ("x", None)])
def test_durations_are_whole_milliseconds_or_not_known(read, text, ms):
    found = read(f"{LONG}a,Eva,m,4,,{text}\nb,Eva,m,4,,{text}\n")
    assert [rating.duration_ms for rating in found.ratings] == [ms] * 2
    note = f"found the duration {text!r}, expected milliseconds from 0; unknown for 2 ratings"
    assert [problem.detail for problem in found.problems] == [note] * bool(text and ms is None)


def test_without_every_time_the_order_of_the_rows_stands(read):
    later, earlier = "a,Eva,m,1,2026-01-02T00:00Z,\n", "b,Eva,m,2,2026-01-01T23:00-02:00,\n"
    first = "c,Eva,m,3,2026-01-01T00:00Z,\n"
    assert [image for image, *_ in plain(read(LONG + later + earlier + first))] == ["c", "a", "b"]
    assert [image for image, *_ in plain(read(LONG + later + "d,Eva,m,4,,\n" + first))] == ["a", "d", "c"]


def test_names_that_differ_only_in_case_are_told_but_not_merged(read):
    found = read(LONG + "a,Eva,m,4,,\na,eva ,m,4,,\na,EVA,m,4,,\na,Jon,m,4,,\na,eva,m,4,,\n")
    assert [labeler for _, labeler, *_ in plain(found)] == ["Eva", "eva", "EVA", "Jon", "eva"]
    assert kinds(found) == [ProblemKind.SIMILAR_NAMES] * 2
    assert "'Eva' and 'eva'" in found.problems[0].detail
    assert found.problems[0].where == "line 3"


def test_a_name_is_the_same_however_its_letters_are_stored(read):
    found = read(LONG + "a,Zo\u00eb,m,4,,\na,Zoe\u0308,m,5,,\n")
    assert [labeler for _, labeler, *_ in plain(found)] == ["Zo\u00eb"] * 2
    assert kinds(found) == []


def task(image, *results, by=1, **others):
    """A task of Label Studio's full export with one annotation."""
    data = image if isinstance(image, dict) else {"image": image}
    annotation = {
        "id": 9,
        "completed_by": by,
        "result": [
            {"id": "x", "from_name": name, "to_name": "image", "type": kind, "origin": "manual", "value": value}
            for name, kind, value in results
        ],
        "was_cancelled": False,
        "created_at": "2026-01-02T03:04:05.123456Z",
        "updated_at": "2026-01-02T03:05:05.123456Z",
        "lead_time": 4.2884,
        **others,
    }
    return {"id": 12, "data": data, "annotations": [annotation], "predictions": [], "project": 1}


def rated(label, name="quality"):
    return (name, "rating", {"rating": label})


def chosen(*choices, name="quality"):
    return (name, "choices", {"choices": list(choices)})


def test_label_studios_full_export_is_read(read):
    person = {"id": 3, "email": "eva@example.org", "first_name": "Eva"}
    first = task("/data/upload/1/0a1b2c3d-a.png", rated(4), ("likeness", "number", {"number": 2}), by=person)
    second = task({"image_id": "i7", "image": "x.png"}, chosen("5 - very good"), ("box", "rectanglelabels", {"x": 1}))
    skipped = task("c.png", rated(1), was_cancelled=True)
    found = read([first, second, skipped, {"id": 3, "data": {}, "annotations": []}])
    assert found.problems == ()
    time = "2026-01-02T03:05:05.123456Z"
    assert found.ratings == (
        Rating("a.png", "eva@example.org", "quality", 4, time, 4288),
        Rating("a.png", "eva@example.org", "likeness", 2, time, 4288),
        Rating("i7", "1", "quality", 5, time, 4288),
    )


@pytest.mark.parametrize(
    ("result", "label"),
    [
        (rated(4), 4),
        (rated(4.0), 4),
        (chosen("4"), 4),
        (chosen("4: good"), 4),
        (chosen("4) good"), 4),
        (chosen("4 (good)"), 4),
        (chosen("4 good, 10% better"), 4),
        (chosen("4 \u2013 \u00fcberzeugend"), 4),
        (rated(4.5), None),
        (rated(0), None),
        (rated(True), None),
        (rated(None), None),
        (rated([4]), 4),
        (rated(float("nan")), None),
        (chosen("4.5"), None),
        (chosen("4.5 - good"), None),
        (chosen("3-4"), None),
        (chosen("good"), None),
        (chosen("10 - best"), None),
        (chosen("4", "5"), None),
        (chosen(), None),
        (("quality", "rating", 7), None),
        (("quality", "rating", None), None),
    ],
)
def test_labels_of_label_studio(read, result, label):
    found = read([task("a.png", rated(1)), task("b.png", result)])
    assert [got for *_, got in plain(found)] == [1] + ([] if label is None else [label])
    assert len(found.problems) == (label is None)
    assert all(problem.where == "task 12, annotation 1" for problem in found.problems)


@pytest.mark.parametrize(
    ("image", "image_id"),
    [
        ("a.png", "a.png"),
        ("/data/upload/1/0a1b2c3d-a.png", "a.png"),
        ("/data/upload/1/0a1b2c3d-%C3%BC.png", "\u00fc.png"),
        ("/data/upload/1/a.png", "a.png"),
        ("images/0a1b2c3d-a.png", "0a1b2c3d-a.png"),
        ("/data/local-files/?d=rated/one%20more/a%2Bb+c.png", "a+b+c.png"),
        ("/data/local-files/?d=rated\\a.png", "a.png"),
        ("https://example.org/x/a%20b.png?token=c/d", "a b.png"),
        ("s3://bucket/x/a.png", "a.png"),
        ("x/50%20a?.png", "50%20a?.png"),
    ],
)
def test_the_image_is_the_name_of_its_file(read, image, image_id):
    assert read([task(image, rated(4))]).ratings[0].image_id == image_id


def test_files_of_the_same_name_are_told_apart_by_their_folders(read):
    found = read([task(f"s3://all/{path}", rated(4)) for path in ("x/a.png", "y/a.png", "y/a.png", "x/b.png")])
    assert [rating.image_id for rating in found.ratings] == ["x/a.png", "y/a.png", "y/a.png", "x/b.png"]


@pytest.mark.parametrize("known", ["a.png", "x/a.png", "a", "x/a", "s3:/all/x/a.png"])
def test_a_file_is_found_among_the_known_images(read, known):
    assert read([task("s3://all/x/a.png", rated(4))], known=[known, "b"]).ratings[0].image_id == known


def test_an_unknown_image_of_label_studio_is_told(read):
    found = read([task("a.png", rated(4)), task("c.png", rated(4))], known=["a.png"])
    assert kinds(found) == [ProblemKind.UNKNOWN_IMAGE]


def test_the_only_metric_of_label_studio_may_be_renamed(read):
    one, two = task("a.png", rated(4)), task("a.png", rated(4), rated(5, "likeness"))
    assert [metric for _, _, metric, _ in plain(read([one], "given"))] == ["given"]
    assert [metric for _, _, metric, _ in plain(read([two], "given"))] == ["quality", "likeness"]


def test_a_question_whose_answers_are_no_numbers_is_told_and_left_out(read):
    found = read([task("a.png", rated(4), chosen("yes", name="face"))], "given")
    assert plain(found) == [("a.png", "1", "given", 4)]
    assert [(problem.kind, problem.where) for problem in found.problems] == [
        (ProblemKind.IGNORED_COLUMN, "control face")
    ]
    with pytest.raises(UserError, match="found the label 'yes'"):
        read([task("a.png", chosen("yes"))])


@pytest.mark.parametrize(
    ("damaged", "kind"),
    [
        (7, ProblemKind.BAD_ROW),
        ({"data": {}}, ProblemKind.BAD_ROW),
        ({"data": {}, "annotations": [7]}, ProblemKind.BAD_ROW),
        ({"data": {}, "annotations": [{"result": None}]}, ProblemKind.BAD_ROW),
        (task({}, rated(4)), ProblemKind.BAD_ROW),
        (task("a.png", rated(4, "")), ProblemKind.BAD_ROW),
        (task("a.png", rated(4), by=None), ProblemKind.NO_LABELER),
        (task("a.png", rated(4), by={}), ProblemKind.NO_LABELER),
        (task("a.png", rated(4), lead_time=-1), ProblemKind.UNREADABLE_TIME),
        (task("a.png", rated(4), lead_time=float("inf")), ProblemKind.UNREADABLE_TIME),
        (task("a.png", rated(4), updated_at=7), ProblemKind.UNREADABLE_TIME),
    ],
)
def test_what_is_damaged_in_label_studios_export_is_told(read, damaged, kind):
    found = read([task("a.png", rated(4)), damaged, task("b.png", rated(4))])
    assert kinds(found) == [kind]
    assert len(found.ratings) == 2 + (kind in NOTES)


def flat(**fields):
    """A task of Label Studio's JSON-MIN."""
    times = {"created_at": "2026-01-02T03:04:05.1Z", "updated_at": "2026-01-02T03:05:05.1Z", "lead_time": 1.5}
    return {"person": "1", "image": "x/a.png", "id": 12, **fields, "annotator": 3, "annotation_id": 9, **times}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"quality": [{"rating": 4}]}, [("quality", 4)]),
        ({"quality": "4 - good", "comment": "nice"}, [("quality", 4)]),
        ({"quality": [{"number": 4}], "likeness": "2"}, [("quality", 4), ("likeness", 2)]),
    ],
)
def test_label_studios_small_export_is_read(read, fields, expected):
    found = read([flat(**fields), flat(**fields, image="b.png") | {"annotator": "eva"}])
    names = [("a.png", "3"), ("b.png", "eva")]
    assert plain(found) == [(*name, *pair) for name in names for pair in expected]
    assert {(rating.timestamp, rating.duration_ms) for rating in found.ratings} == {("2026-01-02T03:05:05.1Z", 1500)}
    assert kinds(found) == [ProblemKind.IGNORED_COLUMN] * ("comment" in fields)


def test_a_task_without_an_answer_is_no_problem_in_the_small_export(read):
    found = read([flat(quality=[{"rating": 4}]), flat(), flat() | {"annotator": None}])
    assert (len(found.ratings), found.problems) == (1, ())


PIECES = st.sampled_from(
    ["\0", "\r", "\n", ",", ";", "\t", '"', " ", "-", "nan", "9" * 5000, "\x1c", "\u2028", "[", "}", "null", "\\ud800"]
)
SAMPLES = [
    LONG + "\n".join(GOOD),
    "image;Eva;Jon;time\na;4;;2026-01-01\nb;1;2;\n",
    json.dumps([task("/data/local-files/?d=x/a.png", rated(4), chosen("4 - good", name="other"))]),
    json.dumps([flat(quality=[{"rating": 4}], likeness="2"), flat(comment="nice")]),
]


@st.composite
def mutated(draw) -> bytes:
    """A sound file with pieces replaced."""
    text = draw(st.sampled_from(SAMPLES))
    for _ in range(draw(st.integers(0, 5))):
        start = draw(st.integers(0, len(text)))
        text = text[:start] + draw(PIECES) + text[start + draw(st.integers(0, 6)) :]
    return text.encode()


OF_TASKS = ["id", "data", "image", "image_id", "annotations", "annotator", "quality", "created_at", "lead_time"]
OF_RESULTS = ["result", "type", "from_name", "value", "rating", "choices", "completed_by", "email", "was_cancelled"]
KEYS = st.sampled_from([*OF_TASKS, *OF_RESULTS])
WORDS_OF_JSON = st.sampled_from(["rating", "choices", "4", "x", "?d="])
ATOMS = st.none() | st.booleans() | st.integers() | st.floats() | WORDS_OF_JSON
NESTED = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=40
)
RESULTS = st.lists(st.fixed_dictionaries({"type": ATOMS, "from_name": ATOMS, "value": NESTED}) | NESTED, max_size=2)
ANNOTATIONS = st.lists(st.fixed_dictionaries({"result": RESULTS, "completed_by": NESTED, "lead_time": ATOMS}))
TASKS = st.lists(st.fixed_dictionaries({"data": st.dictionaries(KEYS, NESTED), "annotations": ANNOTATIONS}) | NESTED)


@pytest.mark.slow
@settings(deadline=None, max_examples=250)
@given(
    st.binary(max_size=200) | st.text(max_size=200).map(str.encode) | mutated() | TASKS.map(json.dumps).map(str.encode),
    st.sampled_from([None, "given"]),
    st.sampled_from([None, ["a", "b", "a.png"]]),
)
def test_any_file_gives_sound_ratings_or_one_error(content, metric, known):
    with tempfile.NamedTemporaryFile() as file:
        file.write(content)
        file.flush()
        try:
            found = read_rating_files([Path(file.name)], metric, known)
        except UserError:
            return
    assert 0 < len(found.ratings) >= sum(problem.kind not in NOTES for problem in found.problems)
    for rating in found.ratings:
        assert rating.label in range(1, 6)
        assert rating.image_id in (known or [rating.image_id])
        assert all(text and text == text.strip() for text in (rating.image_id, rating.labeler, rating.metric))
        assert not rating.timestamp or moment(rating.timestamp)
        assert rating.duration_ms is None or rating.duration_ms >= 0
    to_csv(found.ratings).encode()


@needs.shared("ratings")
def test_the_real_ratings_are_read():
    found = read_rating_files([REAL])
    assert (len(found.ratings), found.problems) == (10155, ())
    assert found.ratings[0] == Rating("midjourney/p11.png", "1", "image_appeal", 1)
    assert {rating.metric for rating in found.ratings} == {"image_appeal", "realism", "prompt_matching"}
