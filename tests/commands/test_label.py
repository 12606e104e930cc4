"""The commands `label plan|serve|export`: what they print, write and refuse."""

import csv
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from PIL import Image

from finetune_monitor.base.csv_files import plain_cell
from finetune_monitor.base.errors import UserError
from finetune_monitor.cli import main
from finetune_monitor.commands import label
from finetune_monitor.serving import addresses
from finetune_monitor.studies.labeling.ratings import RATING_COLUMNS, Rating
from finetune_monitor.studies.labeling.settings import FIRST_PORT
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.studies.labeling.tasks import read_plan
from support.label_plans import AESTHETIC, SIMILARITY, write_small_plan

RATED = [
    Rating("a", "anna", AESTHETIC, 5, "2026-01-02T03:04:05.678+00:00", 1200),
    Rating("a", '=1+1, "x"', SIMILARITY, 1, "2026-01-02T03:04:06.678+00:00", 0),
    Rating("a", "anna", AESTHETIC, 2, "2026-01-02T03:04:07.678+00:00", 800),
]


@pytest.fixture
def folder(tmp_path):
    write_small_plan(tmp_path / "plan", images=3)
    return tmp_path / "plan"


@pytest.fixture
def rated(folder):
    store = RatingStore(folder / RATINGS)
    store.create()
    for number, rating in enumerate(RATED):
        store.add(f"key-{number}", rating)
    return folder


@contextmanager
def serving(*arguments):
    """The command as a process of its own, and the link that it prints."""
    command = [sys.executable, "-m", "finetune_monitor.cli", "label", "serve", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines = [process.stdout.readline() for _ in range(4)]
        link = re.search(r"http://\S+", "".join(lines))
        process.first_lines = lines
        yield process, link and link[0]
    finally:
        process.kill()
        process.communicate()


def test_neither_help_loads_the_server_nor_numpy():
    code = (
        "import sys, finetune_monitor.cli\n"
        "try: finetune_monitor.cli.main(['label', 'serve', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit(bool({'flask', 'waitress', 'numpy', 'PIL', 'torch', 'sqlite3'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, stdout=subprocess.DEVNULL).returncode == 0


# ---- plan


def test_plan_prints_how_many_images_a_person_and_question_has(tmp_path, capsys):
    for person in ("[b]anna", "ben"):
        for kind in ("made", "photos"):
            (tmp_path / kind / person).mkdir(parents=True)
            for number in range(6):
                color = (40 * number, len(person) * 20, len(kind) * 20)
                Image.new("RGB", (32, 32), color).save(tmp_path / kind / person / f"{number}.png")
    references = [f"{person}={tmp_path / 'photos' / person}" for person in ("[b]anna", "ben")]
    output = tmp_path / "a plan"
    arguments = ["label", "plan", str(tmp_path / "made"), "-o", str(output), "--per-person", "4", "--seed", "3"]
    assert main([*arguments, *(word for each in references for word in ("--references", each))]) == 0
    found = capsys.readouterr().out
    assert re.search(r"\[b\]anna\W+2\W+2\W", found)
    assert re.search(r"all\W+4\W+4\W", found)
    assert "asked: face_similarity, 4 images; aesthetic, 4 images\n" in found
    assert f"next:  finetune-monitor label serve '{output}'" in found
    assert read_plan(output).seed == 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["--per-person", "-1"],
        ["--per-person", "many"],
        ["--repeats", "2"],
        ["--repeats", "nan"],
        ["--seed", "1.5"],
        ["--references", "anna"],
        ["--references", "=folder"],
    ],
)
def test_plan_refuses_what_makes_no_sense(tmp_path, arguments, capsys):
    with pytest.raises(SystemExit) as error:
        main(["label", "plan", str(tmp_path), "-o", str(tmp_path / "plan"), *arguments])
    assert error.value.code == 2
    assert "expected" in capsys.readouterr().err


def test_plan_refuses_two_folders_of_one_person(tmp_path, capsys):
    twice = ["--references", "anna=a", "--references", "anna=b"]
    assert main(["label", "plan", str(tmp_path), "-o", str(tmp_path / "plan"), *twice]) == 2
    assert "anna more than once" in capsys.readouterr().err


def test_references_take_one_person_and_leave_the_sources_alone(tmp_path, capsys):
    (tmp_path / "plan").mkdir()
    words = ["label", "plan", "-o", str(tmp_path / "out"), "--references", "anna=a", str(tmp_path / "no-source")]
    assert main(words) == 2
    assert "no-source: no such folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("there", "text", "person"),
    [
        ("photos", "anna=photos", "anna"),
        ("photos", "a=b=photos", "a=b"),
        ("a=b", "anna=a=b", "anna"),
        ("c", "a=b=c", "a=b"),
        ("photos", "anna=gone=photo", "anna"),
        ("photos", f"anna={'x' * 300}", "anna"),
    ],
)
def test_a_person_and_a_folder_may_have_an_equals_sign_in_their_names(tmp_path, monkeypatch, there, text, person):
    (tmp_path / there).mkdir()
    monkeypatch.chdir(tmp_path)
    given = []

    def draw(sources, output, per_person, repeats, seed, references):
        given.append(references)
        raise UserError("enough")

    monkeypatch.setattr("finetune_monitor.studies.labeling.plan.draw_plan", draw)
    assert main(["label", "plan", "images", "-o", "plan", "--references", text]) == 2
    assert given == [{person: Path(text[len(person) + 1 :])}]


# ---- serve


@pytest.mark.slow
def test_serve_and_plan_count_repeats_in_the_same_words(tmp_path):
    write_small_plan(tmp_path / "plan", images=4, repeats=1)
    with serving(tmp_path / "plan", "--port", "0") as (process, link):
        urllib.request.urlopen(link, timeout=20).read()
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=20)
        assert "saved:  0 ratings by 0 labelers" in out
        asked = "face_similarity, 5 images, 1 of them a repeat; aesthetic, 5 images, 1 of them a repeat"
        assert process.first_lines[:2] == [f"asked:  {asked}\n", "so far: 0 ratings by 0 labelers\n"]


@pytest.mark.slow
def test_without_a_port_the_last_one_is_taken_again(folder, capsys):
    assert addresses.last_port(folder, FIRST_PORT) == 8760
    ports = []
    for chosen in (["--port", "0"], [], []):
        with serving(folder, *chosen) as (_, link):
            ports.append(urlsplit(link).port)
            assert addresses.last_port(folder, FIRST_PORT) == ports[-1]
    assert len(set(ports)) == 1
    with socket.create_server(("127.0.0.1", ports[0])):
        assert main(["label", "serve", str(folder)]) == 2
    assert f"--port {ports[0]}: Address already in use" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"65536", b"0", b"http", b"\xff\xfe", None])
def test_a_damaged_port_is_no_reason_to_take_another_one(folder, capsys, content):
    file = folder / addresses.PORT
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert main(["label", "serve", str(folder)]) == 2
    assert "remove the file" in capsys.readouterr().err


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 20 + b" y", b"\xff" * 30, None])
def test_a_damaged_key_is_named(folder, capsys, content):
    file = folder / addresses.KEY
    if content is None:
        file.mkdir()
    else:
        file.write_bytes(content)
    assert main(["label", "serve", str(folder), "--host", "0.0.0.0", "--port", "0"]) == 2
    assert re.search(r"access\.key: (damaged; remove it|cannot read it)", capsys.readouterr().err)


@pytest.mark.slow
def test_serve_ends_with_ctrl_c_and_says_what_is_saved(rated):
    with serving(rated, "--port", "0") as (process, link):
        assert urllib.request.urlopen(link, timeout=20).status == 200
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "3 ratings by 2 labelers, all in" in out
    assert f"next:   finetune-monitor agree {rated} -o agreement" in out
    assert err == ""


@pytest.mark.slow
def test_serve_names_all_that_it_leaves_out(folder):
    tasks = read_plan(folder).tasks
    tasks[0].file.unlink()
    tasks[1].file.write_bytes(b"changed")
    with serving(folder, "--port", "0") as (process, link):
        urllib.request.urlopen(link, timeout=20).read()
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert "left out 2 files of the plan" in err
    assert str(tasks[0].file) in err
    assert str(tasks[1].file) in err


@pytest.mark.slow
def test_elsewhere_the_link_has_a_key_that_stays(folder):
    links = []
    for _ in range(2):
        with serving(folder, "--host", "0.0.0.0", "--port", "0") as (_, link):
            links.append(link)
            key = link.rpartition("?key=")[2]
            here = re.sub(r"//[^:/]+", "//127.0.0.1", link)
            assert urllib.request.urlopen(here, timeout=20).status == 200
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(here.partition("?")[0], timeout=20)
    assert len(key) >= 32
    assert {link.rpartition("?key=")[2] for link in links} == {key}
    assert "0.0.0.0" not in links[0]
    file = folder / "access.key"
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text() == key


@pytest.mark.parametrize(
    ("host", "bound", "names"),
    [
        ("127.0.0.1", "127.0.0.1", {"localhost", "127.0.0.1"}),
        ("LocalHost", "127.0.0.1", {"localhost", "127.0.0.1"}),
        ("box", "127.3.2.1", {"localhost", "127.0.0.1", "127.3.2.1", "box"}),
        ("0", "0.0.0.0", None),
        ("0.0.0.0", "0.0.0.0", None),
        ("Box", "10.0.0.2", {"box", "10.0.0.2"}),
    ],
)
def test_the_address_that_is_bound_decides_who_needs_a_key(folder, host, bound, names):
    access = addresses.access_to(bound, host, folder)
    assert (None if access.hosts is None else set(access.hosts)) == names
    assert (access.key is not None) == (folder / addresses.KEY).exists() == (not bound.startswith("127."))
    [link] = addresses.links_to(bound, 4321, host, access).values()
    assert (f"?key={access.key}" in link) == (access.key is not None)
    assert "//0" not in link


@pytest.mark.parametrize(("host", "bound"), [("0", "0.0.0.0"), ("localhost", "127.0.0.1"), ("127.1", "127.0.0.1")])
def test_what_is_bound_is_an_address(host, bound):
    with addresses.listen(host, 0, "--host") as listening:
        assert listening.getsockname()[0] == bound


@pytest.mark.slow
def test_serve_says_when_the_port_is_taken(folder, capsys):
    with serving(folder, "--port", "0") as (_, link):
        port = link.rstrip("/").rpartition(":")[2]
        assert main(["label", "serve", str(folder), "--port", port]) == 2
    assert f"--port {port}: " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--host", "::1"], "expected an IPv4 address or a name"),
        (["--host", ""], "found nothing, expected an IPv4 address or a name"),
        (["--host", "b\udcffx"], "choose another port or address"),
        (["--host", "x" * 300], "choose another port or address"),
        (["--host", "192.0.2.77", "--port", "0"], "choose another port or address"),
    ],
)
def test_serve_refuses_hosts_that_it_cannot_have(folder, capsys, arguments, words):
    assert main(["label", "serve", str(folder), *arguments]) == 2
    assert words in capsys.readouterr().err


def test_serve_refuses_what_is_no_plan_or_is_damaged(folder, tmp_path, capsys):
    assert main(["label", "serve", str(tmp_path)]) == 2
    assert "expected a folder written by `finetune-monitor label plan`" in capsys.readouterr().err
    (folder / RATINGS).write_bytes(b"no database at all" * 100)
    assert main(["label", "serve", str(folder)]) == 2
    assert "ratings.sqlite: damaged" in capsys.readouterr().err


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_serve_refuses_what_is_no_port(folder, port):
    with pytest.raises(SystemExit):
        main(["label", "serve", str(folder), "--port", port])


# ---- export


@pytest.mark.parametrize(("metric", "expected"), [(None, RATED), (AESTHETIC, [RATED[0], RATED[2]])])
def test_export_writes_every_rating_oldest_first(rated, tmp_path, capsys, metric, expected):
    chosen = [] if metric is None else ["--metric", metric]
    assert main(["label", "export", str(rated), "-o", str(tmp_path / "out.CSV"), *chosen]) == 0
    with (tmp_path / "out.CSV").open(newline="", encoding="utf-8") as file:
        rows = [{name: plain_cell(cell) for name, cell in row.items()} for row in csv.DictReader(file)]
    assert tuple(rows[0]) == RATING_COLUMNS
    found = [Rating(**{**row, "label": int(row["label"]), "duration_ms": int(row["duration_ms"])}) for row in rows]
    assert found == expected
    assert f"{len(expected)} ratings" in capsys.readouterr().out


def test_export_writes_the_page_and_says_its_size(folder, tmp_path, capsys, monkeypatch):
    assert main(["label", "export", str(folder), "-o", str(tmp_path / "page.html")]) == 0
    found = capsys.readouterr()
    assert re.search(r"page\.html, 0\.\d MB", found.out)
    assert "embedding images" in found.err
    monkeypatch.setattr(label, "LARGE", 1000)
    assert main(["label", "export", str(folder), "-o", str(tmp_path / "large.html"), "--metric", AESTHETIC]) == 0
    assert "slow to send" in capsys.readouterr().out
    assert (tmp_path / "large.html").stat().st_size < (tmp_path / "page.html").stat().st_size


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("there.csv", [], "already exists"),
        ("there.html", [], "already exists"),
        ("out.json", [], "expected a file that ends in .csv"),
        ("out.csv", ["--metric", "other"], "found other, expected face_similarity or aesthetic"),
        ("out.html", ["--metric", "other"], "found other, expected face_similarity or aesthetic"),
    ],
)
def test_export_refuses(rated, tmp_path, capsys, name, arguments, words):
    for there in ("there.csv", "there.html"):
        (tmp_path / there).write_text("mine")
    assert main(["label", "export", str(rated), "-o", str(tmp_path / name), *arguments]) == 2
    assert words in capsys.readouterr().err
    assert (tmp_path / "there.csv").read_text() == "mine"
    assert name.startswith("there") or not (tmp_path / name).exists()


@pytest.mark.parametrize("kind", ["csv", "html"])
@pytest.mark.parametrize("name", ["there/out", "x" * 300])
def test_export_to_a_place_that_cannot_be_written(rated, tmp_path, capsys, name, kind):
    (tmp_path / "there").write_text("mine")
    assert main(["label", "export", str(rated), "-o", str(tmp_path / f"{name}.{kind}"), "--metric", AESTHETIC]) == 2
    assert "choose another place" in capsys.readouterr().err


def test_one_rating_is_one(folder, tmp_path, capsys):
    store = RatingStore(folder / RATINGS)
    store.create()
    store.add("key", RATED[0])
    assert main(["label", "export", str(folder), "-o", str(tmp_path / "out.csv")]) == 0
    assert capsys.readouterr().out.endswith("out.csv, 1 rating\n")


def test_export_without_ratings_says_what_comes_first(folder, tmp_path, capsys):
    assert main(["label", "export", str(folder), "-o", str(tmp_path / "out.csv")]) == 2
    assert "found no ratings yet" in capsys.readouterr().err
    assert not (folder / RATINGS).exists()
    assert not (tmp_path / "out.csv").exists()
