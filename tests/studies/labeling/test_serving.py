"""The labeling page's server: what it gives, what it takes, whom it refuses, and that it tells nothing."""

import io
import json
import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from http.client import HTTPConnection
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import spearmanr

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.images import read_image
from finetune_monitor.serving.access import HEADERS, Access
from finetune_monitor.studies.labeling.images import PHOTO_SIDE, PHOTOS, open_gallery
from finetune_monitor.studies.labeling.questions import GAP, ordered, question_of
from finetune_monitor.studies.labeling.ratings import Rating
from finetune_monitor.studies.labeling.serving import BODY, make_app
from finetune_monitor.studies.labeling.storage import RATINGS, RatingStore
from finetune_monitor.studies.labeling.tasks import Task, write_plan
from support.label_plans import AESTHETIC, SECRETS, SIMILARITY, full_disk, write_small_plan
from support.served import served_app

HERE, KEY = ("localhost", "127.0.0.1"), "k" * 20


@pytest.fixture
def plan(tmp_path):
    return write_small_plan(tmp_path / "plan", images=6, repeats=1)


@pytest.fixture
def store(plan, tmp_path):
    made = RatingStore(tmp_path / "plan" / RATINGS)
    made.create()
    return made


@pytest.fixture
def gallery(plan, tmp_path):
    return open_gallery(tmp_path / "plan")


@pytest.fixture
def client(gallery, store):
    return make_app(gallery, store, Access(HERE)).test_client()


@pytest.fixture
def rating(plan, gallery):
    task = plan.tasks[0]
    about = {"plan": gallery.key, "key": "0123456789abcdef", "image_id": task.image_id, "labeler": "anna"}
    return {**about, "metric": task.metric, "label": 4, "duration_ms": 1500, "age_ms": 0}


def questions(client, labeler="anna"):
    return client.get("/api/questions", query_string={"labeler": labeler}).json["questions"]


# ---- What is given


def test_every_image_of_the_plan_is_asked_about_with_its_photos(client, plan):
    similarity, aesthetic = questions(client)
    for question, metric in ((similarity, SIMILARITY), (aesthetic, AESTHETIC)):
        expected = {task.image_id for task in plan.tasks if task.metric == metric}
        assert {task["image_id"] for task in question["tasks"]} == expected
        assert len(question["anchors"]) == 5
    assert all(len(task["photos"]) == 3 for task in similarity["tasks"])
    assert all(task["photos"] == [] for task in aesthetic["tasks"])


def test_answers_so_far_come_with_the_questions_to_their_labeler_alone(client, rating):
    client.post("/api/ratings", json=rating)
    client.post("/api/ratings", json={**rating, "key": "another-key-of-16", "label": 2})
    labels = [task["label"] for task in questions(client)[0]["tasks"] if task["image_id"] == rating["image_id"]]
    assert labels == [2]
    assert all(task["label"] is None for each in questions(client, "ben") for task in each["tasks"])


def test_images_are_the_plans_at_their_own_size(client, plan):
    for question in questions(client):
        for shown in question["tasks"]:
            response = client.get(shown["image"])
            found = Image.open(io.BytesIO(response.data))
            expected = read_image(plan.by_id[shown["image_id"]].file)
            assert (found.format, found.size, response.mimetype) == ("JPEG", expected.size, "image/jpeg")
            assert np.abs(np.asarray(found, float) - np.asarray(expected, float)).mean() < 3
            assert response.headers["Cache-Control"].startswith("private")


def test_photos_are_small_upright_and_the_first_six(tmp_path):
    write_small_plan(tmp_path / "plan", images=2, photos=8)
    gallery = open_gallery(tmp_path / "plan")
    assert all(len(names) == PHOTOS for names in gallery.photos.values())
    assert {max(Image.open(io.BytesIO(content)).size) for content in gallery.encoded.values()} == {PHOTO_SIDE}


def test_nothing_that_a_labeler_receives_tells_anything(client):
    found = [client.get(path) for path in ("/", "/label.js", "/api/questions?labeler=anna", "/api/nothing")]
    for question in questions(client):
        found += [client.get(address) for task in question["tasks"] for address in (task["image"], *task["photos"])]
    for response in found:
        everything = response.data + str(response.headers).encode()
        assert not [secret for secret in SECRETS if secret.encode() in everything]
        assert "Last-Modified" not in response.headers
        assert "ETag" not in response.headers
        if response.mimetype == "image/jpeg":
            image = Image.open(io.BytesIO(response.data))
            assert set(image.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}
            assert not re.search(rb"Exif\0|http://ns.adobe|\xff\xfe", response.data[:2000])


def test_a_repeat_looks_like_any_other_image(client, plan):
    [again] = [task for task in plan.tasks if task.repeat_of and task.metric == SIMILARITY]
    shapes = {tuple(sorted(task)) for task in questions(client)[0]["tasks"]}
    assert shapes == {("image", "image_id", "label", "photos")}
    assert again.repeat_of not in json.dumps(
        [t for t in questions(client)[0]["tasks"] if t["image_id"] == again.image_id]
    )


@pytest.mark.parametrize("path", ["/images/{plan}/no-such", "/images/other/{image}", "/photos/{plan}/no-such"])
def test_what_is_not_of_this_plan_is_not_found(client, gallery, plan, path):
    assert client.get(path.format(plan=gallery.key, image=plan.tasks[0].image_id)).status_code == 404


# ---- Each labeler's order


def tasks_of(images, repeats):
    own = [Task(f"i{number}", AESTHETIC, "p", Path("f"), "s") for number in range(images)]
    again = [Task(f"r{number}", AESTHETIC, "p", Path("f"), "s", repeat_of=f"i{number}") for number in range(repeats)]
    return [*again, *own]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 9), st.text(max_size=5))
def test_a_repeat_comes_late_enough(images, share, seed, labeler):
    tasks = tasks_of(images, int(share * images))
    found = ordered(tasks, seed, labeler)
    assert Counter(found) == Counter(tasks)
    places = {task.image_id: place for place, task in enumerate(found)}
    gaps = [places[task.image_id] - places[task.repeat_of] for task in tasks if task.repeat_of]
    assert all(gap >= min(GAP, len(tasks) // 2) for gap in gaps)


def test_every_labeler_and_metric_has_an_order_of_its_own_and_keeps_it():
    tasks = tasks_of(60, 3)
    places = [
        [found.index(task) for task in tasks]
        for found in (ordered(tasks, seed, name) for seed in (0, 1) for name in "abcdefghij")
    ]
    assert ordered(tasks, 0, "a") == ordered(tasks[::-1], 0, "a")
    likeness = spearmanr(np.array(places), axis=1).statistic
    assert np.abs(likeness[np.triu_indices(20, 1)]).max() < 0.6
    assert np.abs(likeness[np.triu_indices(20, 1)]).mean() < 0.15
    other = [replace(task, metric=SIMILARITY) for task in tasks]
    assert [task.image_id for task in ordered(other, 0, "a")] != [task.image_id for task in ordered(tasks, 0, "a")]


def test_every_image_may_come_anywhere():
    tasks = tasks_of(20, 0)
    firsts = Counter(ordered(tasks, 0, f"labeler {number}")[0].image_id for number in range(2000))
    assert len(firsts) == 20
    assert max(firsts.values()) < 150  # 100 expected


def test_a_metric_without_words_of_its_own_is_asked_for_by_name():
    assert "<b>sharpness" in question_of("<b>sharpness").ask
    assert not question_of("sharpness").with_photos


# ---- What is taken


def test_a_rating_that_waited_is_kept_with_the_time_when_it_was_given(client, store, rating):
    sent = [(4, 5_000), (2, 60_000), (1, 90 * 24 * 3600 * 1000)]
    for number, (label, age) in enumerate(sent):
        answer = {**rating, "key": f"{number:016d}", "label": label, "age_ms": age}
        assert client.post("/api/ratings", json=answer).status_code == 204
    now = datetime.now(timezone.utc)
    ages = [(now - datetime.fromisoformat(each.timestamp)).total_seconds() * 1000 for each in store.all()]
    assert ages == pytest.approx([age for _, age in sent], abs=4000)
    [shown] = [task for task in questions(client)[0]["tasks"] if task["image_id"] == rating["image_id"]]
    assert shown["label"] == 4


@pytest.mark.parametrize(
    ("known", "entered", "goes_on_as"),
    [
        (["ann"], "Ann", "ann"),
        (["ann"], " ANN ", "ann"),
        (["Stra\u00dfer"], "STRASSER", "Stra\u00dfer"),
        (["Zo\u00eb W"], "zoe\u0308  w", "Zo\u00eb W"),
        (["ann", "Ann"], "Ann", "Ann"),
        (["ann", "Ann"], "ANN", "ann"),
        (["ann"], "anne", "anne"),
    ],
)
def test_a_name_in_other_letters_is_the_same_labeler(client, store, rating, known, entered, goes_on_as):
    for number, name in enumerate(known):
        store.add(f"{number}", Rating(rating["image_id"], name, SIMILARITY, 1 + number, f"2026-01-0{number + 1}"))
    found = client.get("/api/questions", query_string={"labeler": entered}).json
    assert found["labeler"] == goes_on_as
    answered = [task["label"] for task in found["questions"][0]["tasks"] if task["label"] is not None]
    assert answered == ([known.index(goes_on_as) + 1] if goes_on_as in known else [])
    assert client.post("/api/ratings", json={**rating, "labeler": entered}).status_code == 204
    assert store.all()[-1].labeler == goes_on_as


def test_a_rating_is_kept_with_the_servers_time(client, store, rating):
    before = datetime.now(timezone.utc)
    assert client.post("/api/ratings", json=rating).status_code == 204
    assert client.post("/api/ratings", json=rating).status_code == 204
    [found] = store.all()
    assert (found.image_id, found.labeler, found.metric, found.label) == (rating["image_id"], "anna", SIMILARITY, 4)
    assert found.duration_ms == 1500
    taken = datetime.fromisoformat(found.timestamp)
    assert abs((taken - before).total_seconds()) < 10
    assert taken.utcoffset().total_seconds() == 0


@pytest.mark.parametrize("name", ["<img src=x onerror=alert(1)>", '=1+1, "x"', "Zoë 写真", "x" * 60, "../../etc"])
def test_any_printable_name_is_a_labeler(client, store, rating, name):
    assert client.post("/api/ratings", json={**rating, "labeler": f"  {name} "}).status_code == 204
    assert store.all()[0].labeler == name


BAD = {
    "key": [None, "", "short", "x" * 65, "spaces are not ok", 1234567890123456, ["0123456789abcdef"]],
    "image_id": [None, "", "no-such", 1, ["a"], {"a": 1}],
    "metric": [None, "", AESTHETIC, "no-such", 1],
    "label": [None, 0, 6, -1, 3.0, 2.5, "3", True, False, [3], float("nan"), 10**30],
    "labeler": [None, "", "   ", "x" * 61, "a\u0007b", "a\u202eb", "\ud800", 1, ["anna"]],
    "duration_ms": [None, -1, 1.5, "1", True, 10**30, float("inf")],
    "age_ms": [None, -1, 1.5, "1", True, 90 * 24 * 3600 * 1000 + 1],
    "plan": [None, "", "other"],
}


@pytest.mark.parametrize(("field", "value"), [(field, value) for field, values in BAD.items() for value in values])
def test_bad_fields_are_refused_in_words(client, store, rating, field, value):
    response = client.post("/api/ratings", json={**rating, field: value})
    assert response.status_code == (409 if field == "plan" else 422)
    assert field in response.text or field in ("image_id", "plan")
    assert store.all() == []


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        ("", "application/json", 400),
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ("null", "application/json", 400),
        ("[" * 4000, "application/json", 400),
        ('{"label": 3}', "application/json", 400),
        ("1" * 4000, "application/json", 400),
        (b"\xff\xfe", "application/json", 400),
        ("x" * (BODY + 1), "application/json", 413),
        ("{}", "text/plain", 415),
        ("label=3", "application/x-www-form-urlencoded", 415),
        ("{}", "", 415),
    ],
)
def test_bad_bodies_are_refused(client, store, body, kind, status):
    response = client.post("/api/ratings", data=body, content_type=kind)
    assert response.status_code == status
    assert response.mimetype == "text/plain"
    assert store.all() == []


def test_one_field_more_or_less_is_refused(client, store, rating):
    for sent in ({**rating, "score": 1}, {name: value for name, value in rating.items() if name != "duration_ms"}):
        assert client.post("/api/ratings", json=sent).status_code == 400
    assert store.all() == []


@pytest.mark.parametrize("labeler", ["", "x" * 61, "a\u0007"])
def test_questions_for_what_is_no_name_are_refused(client, labeler):
    assert client.get("/api/questions", query_string={"labeler": labeler}).status_code == 422


def test_what_goes_wrong_with_the_file_is_told_in_general_words(client, store, rating, caplog):
    store.file.write_bytes(b"no database at all" * 100)
    response = client.post("/api/ratings", json=rating)
    assert response.status_code == 500
    assert "Contact whoever runs" in response.text
    assert "ratings.sqlite" not in response.text
    assert "damaged" in caplog.text


def test_a_full_disk_is_status_507(client, store, rating, monkeypatch):
    with full_disk(monkeypatch):
        sent = [
            client.post("/api/ratings", json={**rating, "key": f"{number:016d}", "labeler": "x" * 60})
            for number in range(60)
        ]
    assert sent[-1].status_code == 507
    assert "disk that stores the ratings is full" in sent[-1].text
    assert len(store.all()) == sum(response.status_code == 204 for response in sent)


def test_many_labelers_at_once_over_real_sockets(gallery, store, plan):
    def rate(port, labeler):
        connection = HTTPConnection("127.0.0.1", port, timeout=30)
        for number, task in enumerate(plan.tasks):
            about = {
                "plan": gallery.key,
                "key": f"{labeler}-{number:016d}",
                "image_id": task.image_id,
                "labeler": labeler,
            }
            about |= {"metric": task.metric, "label": 1 + number % 5, "duration_ms": 1, "age_ms": 0}
            body = json.dumps(about)
            connection.request("POST", "/api/ratings", body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            response.read()
            assert response.status == 204
        connection.close()

    with served_app(make_app(gallery, store, Access(HERE))) as port, ThreadPoolExecutor(6) as pool:
        list(pool.map(partial(rate, port), [f"labeler-{number}" for number in range(6)]))
    assert len(store.all()) == 6 * len(plan.tasks)


# ---- Who is refused


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:8760", 200),
        ("127.0.0.1:8760", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil", 400),
    ],
)
def test_only_names_of_this_machine_are_answered(client, host, status):
    for path in ("/", "/api/questions", "/label.js"):
        response = client.get(path, headers={"Host": host})
        assert response.status_code == status
        assert (status == 200) != ("Open it with the link" in response.text)
        assert "trusted" not in response.text or status == 200


@pytest.mark.parametrize(
    ("address", "status"),
    [("127.0.0.1", 200), ("127.8.9.1", 200), ("::1", 200), ("192.168.1.7", 403), ("::ffff:10.0.0.1", 403), ("", 403)],
)
def test_only_this_machine_is_answered(client, address, status):
    for path in ("/", "/api/questions", "/label.js"):
        response = client.get(path, environ_base={"REMOTE_ADDR": address})
        assert response.status_code == status
        assert status == 200 or response.mimetype == "text/plain"


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        (None, 204),
        ("http://localhost", 204),
        ("http://localhost:1234", 403),
        ("https://localhost", 204),  # the end of a tunnel
        ("https://localhost:8443", 403),
        ("http://[", 403),
        ("http://", 403),
        ("http://evil.example", 403),
        ("null", 403),
    ],
)
def test_ratings_come_only_from_the_page_itself(client, store, rating, origin, status):
    headers = {} if origin is None else {"Origin": origin}
    assert client.post("/api/ratings", json=rating, headers=headers).status_code == status
    assert len(store.all()) == (status == 204)


@pytest.fixture
def guarded(gallery, store):
    return make_app(gallery, store, Access(None, KEY))


def test_elsewhere_nothing_is_given_without_the_key(guarded, rating, store, gallery, plan):
    client = guarded.test_client()
    paths = ["/", "/label.js", "/api/questions", f"/images/{gallery.key}/{plan.tasks[0].image_id}", "/no-such"]
    for path in [*paths, *(f"{path}?key={wrong}" for path in paths for wrong in ("", "x", KEY + "x", "ü", KEY[:-1]))]:
        response = client.get(path, environ_base={"REMOTE_ADDR": "192.168.1.7"})
        assert response.status_code == 403
        assert "Set-Cookie" not in response.headers
    assert client.post("/api/ratings", json=rating).status_code == 403
    assert store.all() == []


def test_elsewhere_the_link_opens_the_page_and_the_cookie_keeps_it_open(guarded, rating, store):
    client, away = guarded.test_client(), {"environ_base": {"REMOTE_ADDR": "192.168.1.7"}}
    response = client.get(f"/?key={KEY}", **away)
    assert response.status_code == 200
    cookie = response.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert client.get("/api/questions", **away).status_code == 200
    assert client.post("/api/ratings", json=rating, **away).status_code == 204
    assert len(store.all()) == 1


def test_a_named_address_is_the_only_name(gallery, store):
    client = make_app(gallery, store, Access(("192.168.1.5",), KEY)).test_client()
    for host, status in (("192.168.1.5:8760", 200), ("localhost", 400), ("evil.example", 400)):
        assert client.get(f"/?key={KEY}", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("path", ["/", "/label.js", "/api/questions", "/no-such", "/api/ratings"])
def test_every_answer_carries_the_headers(client, path):
    response = client.get(path)
    for name, value in HEADERS.items():
        assert response.headers[name] == value
    assert "'unsafe" not in response.headers["Content-Security-Policy"]
    assert response.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    "path", ["/../storage.py", "/%2e%2e/storage.py", "/label.html", "/storage.py", "/page/label.js"]
)
def test_no_other_file_is_served(client, path):
    assert client.get(path).status_code == 404


# ---- What is left out


def test_a_changed_image_is_left_out_and_the_others_stay(plan, tmp_path):
    changed, missing = plan.tasks[1], plan.tasks[2]
    changed.file.write_bytes(b"other")
    missing.file.unlink()
    gallery = open_gallery(tmp_path / "plan")
    assert len(gallery.tasks) == len(plan.tasks) - 2
    assert {str(changed.file) in line or str(missing.file) in line for line in gallery.left_out} == {True}
    assert gallery.key == open_gallery(tmp_path / "plan").key


def test_a_rating_of_an_image_that_has_changed_since_is_still_kept(plan, tmp_path, store, rating):
    plan.by_id[rating["image_id"]].file.unlink()
    client = make_app(open_gallery(tmp_path / "plan"), store, Access(HERE)).test_client()
    assert client.post("/api/ratings", json=rating).status_code == 204


def test_an_image_that_changes_while_it_is_served_is_not_shown(client, plan, caplog):
    plan.tasks[0].file.write_bytes(plan.tasks[1].file.read_bytes())
    [shown] = [task for task in questions(client)[0]["tasks"] if task["image_id"] == plan.tasks[0].image_id]
    response = client.get(shown["image"])
    assert response.status_code == 404
    assert "CANARY" not in response.text
    assert "has changed since" in caplog.text


def test_without_an_image_left_there_is_nothing_to_open(plan, tmp_path):
    for task in plan.tasks:
        task.file.unlink(missing_ok=True)
    with pytest.raises(UserError, match="no image of the plan can be shown"):
        open_gallery(tmp_path / "plan")


def test_likeness_needs_a_photo(plan, tmp_path):
    first, second = sorted(plan.references)
    for photo in plan.references[first]:
        photo.write_bytes(b"damaged")
    gallery = open_gallery(tmp_path / "plan")
    assert {task.person for task in gallery.by_metric[SIMILARITY]} == {second}
    assert {task.person for task in gallery.by_metric[AESTHETIC]} == {first, second}
    write_plan(tmp_path / "plan", replace(plan, references={second: plan.references[second]}))
    assert len(open_gallery(tmp_path / "plan").tasks) == len(gallery.tasks)


def test_another_plan_has_another_key(tmp_path):
    keys = set()
    for images in (1, 2):
        for seed in (0, 1):
            folder = tmp_path / f"{images} {seed}" / "plan"
            write_small_plan(folder, images=images, seed=seed)
            keys.add(open_gallery(folder).key)
    assert len(keys) == 4
