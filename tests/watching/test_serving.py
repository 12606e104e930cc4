"""The live view's server: whom it refuses, what it gives, and which requests it passes on."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from finetune_monitor.base.errors import UserError
from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record import live
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.report.page_runs import run_id
from finetune_monitor.serving.access import HEADERS, Access
from finetune_monitor.watching.pages import LivePages
from finetune_monitor.watching.runs import Watched
from finetune_monitor.watching.serving import make_app
from support.places import ROOT
from support.runs import write_run
from support.scripted import GRID, Scripted

KEY = "k" * 32
HERE = {"base_url": "http://127.0.0.1:1"}


@pytest.fixture
def runs(tmp_path) -> Path:
    write_run(tmp_path / "runs/ana", {0: 0.1, 10: 0.5}, StopReason.MAX_STEPS)
    write_run(tmp_path / "runs/sweep/trials/1", {0: 0.1}, StopReason.INTERRUPTED)
    write_run(tmp_path / "runs/.hidden", {0: 0.1}, StopReason.INTERRUPTED)
    return tmp_path / "runs"


@pytest.fixture(autouse=True)
def searched_always(monkeypatch):
    monkeypatch.setattr("finetune_monitor.watching.runs.RESCAN", 0.0)


@pytest.fixture
def pages(tmp_path) -> LivePages:
    return LivePages(tmp_path / "pages")


@pytest.fixture
def client(runs, pages):
    client = make_app(Watched(runs), pages, Access(("localhost", "127.0.0.1"), KEY), 1).test_client()
    client.set_cookie("watch-1", KEY, domain="127.0.0.1")
    return client


@pytest.fixture
def in_progress(pipeline, runs):
    with FinetuneMonitor(pipeline, GRID, [Scripted([0.1] * 9)], runs / "live", every=10) as monitor:
        yield monitor


def of(folder: Path) -> str:
    return run_id(folder.resolve())


def test_runs_are_listed_wherever_they_are_with_their_state(in_progress, client, runs):
    (runs / "broken").mkdir()
    (runs / "broken/run.json").write_text("[")
    os.symlink(runs, runs / "loop")
    found = {run["name"]: run for run in client.get("/api/runs", **HERE).json["runs"]}
    states = {"ana": "finished", "1": "interrupted", "live": "training", "broken": "unreadable"}
    assert {name: run["state"] for name, run in found.items()} == states
    assert found["ana"]["best"]["step"] == 10
    assert found["live"]["cannot"] == ""
    assert "not valid JSON" in found["broken"]["why"]


def test_runs_in_progress_come_first(in_progress, client, runs):
    assert [run["name"] for run in client.get("/api/runs", **HERE).json["runs"]] == ["live", "ana", "1"]


def test_a_run_that_has_ended_is_listed_with_its_last_step(in_progress, client):
    in_progress.on_step_end(7)
    in_progress.close(StopReason.INTERRUPTED)
    [live] = [run for run in client.get("/api/runs", **HERE).json["runs"] if run["name"] == "live"]
    assert (live["state"], live["step"], live["evaluated"]) == ("interrupted", 7, [0])


def test_nobody_gets_anything_without_the_key(runs, pages):
    anybody = make_app(Watched(runs), pages, Access(("localhost", "127.0.0.1"), KEY), 1).test_client()
    identity = of(runs / "ana")
    for path in ("/", "/api/runs", f"/api/runs/{identity}", f"/runs/{identity}/", "/strip.js", "/?key=" + "x" * 32):
        assert anybody.get(path, **HERE).status_code == 403
    assert anybody.get("/?key=" + KEY, base_url="http://evil.example:1").status_code == 400
    response = anybody.get("/?key=" + KEY, **HERE)
    assert response.status_code == 200
    assert "SameSite=Strict" in response.headers["Set-Cookie"]
    assert "HttpOnly" in response.headers["Set-Cookie"]


def test_every_answer_has_the_headers_and_the_page_its_own_policy(client, pages, runs):
    identity = of(runs / "ana")
    for path in ("/", "/list.css", "/api/runs", "/api/runs/00000000"):
        assert {name: client.get(path, **HERE).headers[name] for name in HEADERS} == HEADERS
    page = opened(client, identity)
    assert page.headers["Content-Security-Policy"] == "frame-ancestors 'none'"
    assert b"default-src 'none'; connect-src 'self'; script-src 'self'" in page.data
    assert page.headers["Cache-Control"] == "no-store"
    assert b"finetuneMonitor.manifest" in client.get(f"/runs/{identity}/data/runs.js", **HERE, buffered=True).data


def opened(client, identity):
    """The page of a run, once it has been written."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        page = client.get(f"/runs/{identity}/", **HERE)
        if b'strip.js" data-written' in page.data:
            return page
        assert b"Writing the page" in page.data
        time.sleep(0.02)
    raise AssertionError("no page was written")


@pytest.mark.slow
@pytest.mark.parametrize(
    "path", ["../../x", "..%2f..%2fx", "data/../../x", ".lock/x", "nothing.js", "/etc/passwd", "index.html"]
)
def test_nothing_outside_the_page_is_given(client, runs, tmp_path, path):
    (tmp_path / "x").write_text("secret")
    identity = of(runs / "ana")
    opened(client, identity)
    assert client.get(f"/runs/{identity}/{path}", **HERE).status_code in (308, 404)


def test_only_previews_of_the_evaluation_in_progress_are_given(in_progress, client, runs):
    path = live.preview_path(runs / "live", 10, "cell")
    path.write_bytes(b"jpeg")
    (runs / "live/in_progress/step-1-x.jpg").symlink_to("/dev/zero")
    place = f"/runs/{of(runs / 'live')}/in_progress"
    assert client.get(f"{place}/{path.name}", **HERE).data == b"jpeg"
    for name in ("step-1-x.jpg", "..%2frun.json", "other.jpg"):
        assert client.get(f"{place}/{name}", **HERE).status_code == 404


def test_requests_are_passed_on_to_a_run_in_progress(in_progress, client, runs):
    def ask(name):
        return client.post(f"/api/runs/{of(runs / 'live')}/requests", json={"request": name}, **HERE).status_code

    assert [ask(name) for name in ("pause", "evaluate", "resume")] == [204] * 3
    assert not in_progress.on_step_end(1)
    assert [each.step for each in in_progress.evaluations] == [0, 1]
    assert ask("stop") == 204
    assert in_progress.on_step_end(2)


def test_a_run_that_has_ended_takes_no_requests_and_says_so(client, runs):
    place = f"/api/runs/{of(runs / 'ana')}"
    assert client.get(place, **HERE).json["cannot"] == "It is not in progress, so there is nothing to steer."
    response = client.post(f"{place}/requests", json={"request": "stop"}, **HERE)
    assert (response.status_code, response.text) == (409, "It is not in progress, so there is nothing to steer.\n")
    assert not (runs / "ana/control").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sent", "headers", "status"),
    [
        ({"json": {"request": "delete"}}, {}, 400),
        ({"json": {"request": ["stop"]}}, {}, 400),
        ({"json": {"request": "stop", "more": 1}}, {}, 400),
        ({"json": ["stop"]}, {}, 400),
        ({"data": "{", "content_type": "application/json"}, {}, 400),
        ({"data": "[" * 190, "content_type": "application/json"}, {}, 400),
        ({"json": {"request": "s" * 300}}, {}, 413),
        ({"data": {"request": "stop"}}, {}, 415),
        ({"json": {"request": "stop"}}, {"Origin": "http://evil.example"}, 403),
        ({"json": {"request": "stop"}}, {"Origin": "null"}, 403),
    ],
)
def test_what_is_no_request_of_the_page_is_refused(in_progress, client, runs, sent, headers, status):
    place = f"/api/runs/{of(runs / 'live')}/requests"
    assert client.post(place, **sent, headers=headers, **HERE).status_code == status
    assert client.get(place, **HERE).status_code == 404 or client.get(place, **HERE).status_code == 405
    assert list((runs / "live/control").iterdir()) == []


def test_a_run_that_is_gone_is_said_to_be(client, runs):
    response = client.get("/api/runs/00000000", **HERE)
    assert (response.status_code, response.text) == (
        404,
        "There is no such run; it may have been moved or deleted.\n",
    )


@pytest.mark.parametrize("name", ["none", "empty", "file"])
def test_a_folder_without_runs_is_said_to_have_none(name, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    said = r"(no such folder; |a file; |no run in it, )expected a run directory or a folder with"
    with pytest.raises(UserError, match=said):
        Watched(tmp_path / name)


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
def test_somebody_who_may_only_read_a_run_watches_it_without_buttons(pipeline):
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        with FinetuneMonitor(pipeline, GRID, [Scripted([0.1] * 9)], run, every=10):
            for path in (Path(folder), *Path(folder).rglob("*")):
                path.chmod(0o755 if path.is_dir() else 0o644)
            program = (
                "import json, os, sys; from pathlib import Path; from finetune_monitor.watching.runs import Watched\n"
            )
            program += "from finetune_monitor.report.page import write_page; os.setuid(65534)\n"
            program += f"[run] = Watched(Path({str(run)!r})).runs().values(); print(json.dumps(run.glance()))"
            found = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert found.stderr == ""
    glance = json.loads(found.stdout)
    assert glance["state"] == "training"
    assert glance["cannot"] == "You may read it but not write in its folder, so only its owner can steer it."
