"""150 connections that send nothing, or half a request: the labeling server still answers."""

import contextlib
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from finetune_monitor.serving.access import Access
from finetune_monitor.studies.labeling.ratings import Rating
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from support.label_plans import write_small_plan

HALVES = (
    b"",
    b"GET / HT",
    b"GET / HTTP/1.1\r\nHost: localhost\r\n",
    b"POST /api/ratings HTTP/1.1\r\nContent-Length: 99\r\n\r\n{",
)


@contextmanager
def served(folder, *options: str) -> Iterator[list[str]]:
    """The links that the command prints."""
    command = [sys.executable, "-m", "finetune_monitor.cli", "label", "serve", str(folder), "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        links: list[str] = []
        while not (line := process.stdout.readline()).startswith("stop:"):
            assert line, "the server did not start"
            links += re.findall(r"http://\S+", line)
        yield links
    finally:
        process.kill()
        process.communicate()


def read(link: str) -> str:
    with urllib.request.urlopen(link, timeout=10) as response:
        return response.read().decode()


@pytest.mark.slow
@pytest.mark.parametrize("count", [150, 600])
def test_the_server_answers(count, tmp_path):
    write_small_plan(tmp_path / "plan")
    with served(tmp_path / "plan") as [link], contextlib.ExitStack() as held:
        host, port = re.fullmatch(r"http://(.+):(\d+)/", link).groups()
        for number in range(count):
            connection = held.enter_context(socket.create_connection((host, int(port)), timeout=10))
            connection.sendall(HALVES[number % len(HALVES)])
        for _ in range(3):
            assert "<html" in read(link)
            assert '"questions"' in read(f"{link}api/questions?labeler=ana")


@pytest.mark.slow
def test_a_labeler_with_a_key_of_their_own_rates_under_that_name_only(tmp_path):
    write_small_plan(tmp_path / "plan")
    store = RatingStore(tmp_path / "plan" / RATINGS)
    store.create()
    with served(tmp_path / "plan", "--labeler", "ana", "--labeler", "Ben  Ö") as links:
        assert len(set(links)) == 2
        for link, name in zip(links, ("ana", "Ben Ö"), strict=True):
            page, _, key = link.partition("?key=")
            said = read(f"{page}api/questions?labeler=somebody&key={key}")
            assert f'"labeler":"{name}"' in said.encode().decode("unicode_escape", "ignore").replace(" ", "") or (
                name in said.encode().decode("unicode_escape", "ignore")
            )
        shared = (tmp_path / "plan/access.key").read_text().strip()
        for wrong in ("", f"?key={shared}", f"?key={'0' * 64}", f"?key={links[0][-10:]}"):
            with pytest.raises(urllib.error.HTTPError, match="403"):
                read(page + wrong)


def test_own_keys_tell_nothing_about_each_other():
    access = Access(None, "secret" * 4, ("ana", "ben"))
    assert access.own_key("ana") != access.own_key("ben")
    assert set(access.keys.values()) == {"ana", "ben"}
    assert access.key not in access.keys
    assert Access(None, "secret").keys == {"secret": None}


def test_a_rating_is_saved_under_the_keys_name(tmp_path):
    from finetune_monitor.studies.labeling.images import open_gallery
    from finetune_monitor.studies.labeling.serving import make_app

    write_small_plan(tmp_path / "plan")
    store = RatingStore(tmp_path / "plan" / RATINGS)
    store.create()
    gallery = open_gallery(tmp_path / "plan")
    access = Access(None, "secret" * 4, ("ana",))
    client = make_app(gallery, store, access).test_client()
    assert client.get(f"/?key={access.own_key('ana')}").status_code == 200  # and sets the cookie
    task = gallery.tasks[0]
    sent = {"plan": gallery.key, "key": "0123456789abcdef", "image_id": task.image_id, "labeler": "ben"}
    sent |= {"metric": task.metric, "label": 3, "duration_ms": 1, "age_ms": 0}
    assert client.post("/api/ratings", json=sent).status_code == 204
    [rating] = store.all()
    assert isinstance(rating, Rating)
    assert rating.labeler == "ana"
