"""The labeling page as a web application: access, content, and how ratings are received."""

import json
import logging
import re
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask, Response, abort, g, request

from finetune_monitor.base.errors import UserError
from finetune_monitor.serving.access import Access, keep_key, protect
from finetune_monitor.studies.labeling import PAGE
from finetune_monitor.studies.labeling.images import Gallery, image_jpeg
from finetune_monitor.studies.labeling.questions import ordered, question_of
from finetune_monitor.studies.labeling.ratings import Rating
from finetune_monitor.studies.labeling.settings import LONGEST_NAME
from finetune_monitor.studies.labeling.storage import DiskFullError, RatingStore

logger = logging.getLogger(__name__)

KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

ASSETS = {path.name: KINDS[Path(path.name).suffix] for path in PAGE.iterdir() if Path(path.name).suffix in KINDS}
"""The files that the page loads, with their types."""

BODY = 4096
"""Maximum bytes of a request; a rating takes about 300."""

LONGEST_LOOK = 10**9
"""In milliseconds; eleven days."""

LONGEST_WAIT = 90 * 24 * 3600 * 1000
"""Maximum milliseconds from an answer to its arrival."""

FIELDS = ("plan", "key", "image_id", "labeler", "metric", "label", "duration_ms", "age_ms")

REFUSED = 422
"""The status of a rating that will never be accepted; the page retries after any other."""

OTHER_PLAN = (
    "This page now serves a different plan. Your answers stay in this browser until their plan is served here again: "
    "contact whoever runs this page, then reload it."
)

FULL = "The disk that stores the ratings is full. Contact whoever runs this page."

UNWRITABLE = "The server cannot save the ratings. Contact whoever runs this page."


def make_app(gallery: Gallery, store: RatingStore, access: Access) -> Flask:
    """The application for one plan."""
    app = Flask("finetune_monitor.labeling", static_folder=None)
    protect(app, access, f"labeling-{gallery.key}", BODY)
    app.register_error_handler(UserError, _report)
    views: dict[str, Callable[..., Any]] = {
        "/": partial(_page, access, f"labeling-{gallery.key}"),
        "/<any({}):name>".format(", ".join(f'"{name}"' for name in ASSETS)): _asset,
        "/api/questions": partial(_questions, gallery, store),
        "/images/<plan>/<image_id>": partial(_image, gallery),
        "/photos/<plan>/<name>": partial(_photo, gallery),
    }
    for number, (path, view) in enumerate(views.items()):
        app.add_url_rule(path, str(number), view)
    app.add_url_rule("/api/ratings", "rate", partial(_rate, gallery, store), methods=["POST"])
    return app


def _page(access: Access, cookie: str) -> Response:
    """The page; a required key becomes a cookie, and the page removes it from the URL."""
    return keep_key(Response((PAGE / "label.html").read_bytes(), mimetype="text/html"), access, cookie)


def _asset(name: str) -> Response:
    return Response((PAGE / name).read_bytes(), mimetype=ASSETS[name])


def _questions(gallery: Gallery, store: RatingStore) -> dict[str, Any]:
    """The questions, each with its images in the labeler's order and the answers so far, and the labeler's name."""
    name = request.args.get("labeler", g.get("labeler"))
    labeler = "" if name is None else _labeler(name, store)
    labels = store.latest(labeler)
    root = f"/photos/{gallery.key}/"
    questions = []
    for metric, tasks in gallery.by_metric.items():
        shown = [
            {
                "image_id": task.image_id,
                "label": labels.get((metric, task.image_id)),
                "image": f"/images/{gallery.key}/{task.image_id}",
                "photos": [root + name for name in gallery.photos_beside(task)],
            }
            for task in ordered(tasks, gallery.plan.seed, labeler)
        ]
        questions.append({**question_of(metric).to_json(), "tasks": shown})
    return {"plan": gallery.key, "labeler": labeler, "questions": questions}


def _image(gallery: Gallery, plan: str, image_id: str) -> Response:
    if plan != gallery.key or image_id not in gallery.by_id:
        abort(404, "There is no such image.")
    try:
        content = image_jpeg(gallery.by_id[image_id])
    except UserError as error:
        logger.error("%s", error)
        abort(404, "This image can no longer be shown.")
    return _private(content)


def _photo(gallery: Gallery, plan: str, name: str) -> Response:
    if plan != gallery.key or name not in gallery.encoded:
        abort(404, "There is no such photo.")
    return _private(gallery.encoded[name])


def _private(content: bytes) -> Response:
    """A JPEG that only the labeler's browser may cache; its URL never refers to a different image."""
    response = Response(content, mimetype="image/jpeg")
    response.headers["Cache-Control"] = "private, max-age=86400"
    return response


def _rate(gallery: Gallery, store: RatingStore) -> Response:
    """Save one rating, which was given `age_ms` before it arrived; it is on disk when this returns."""
    sent = _sent()
    if sent["plan"] != gallery.key:
        abort(409, OTHER_PLAN)
    key = sent["key"]
    if not (isinstance(key, str) and re.fullmatch(r"[0-9A-Za-z-]{16,64}", key)):
        abort(REFUSED, "key: expected 16 to 64 letters, digits and hyphens.")
    label, duration = _whole(sent, "label", 1, 5), _whole(sent, "duration_ms", 0, LONGEST_LOOK)
    age = timedelta(milliseconds=_whole(sent, "age_ms", 0, LONGEST_WAIT))
    task = gallery.plan.by_id.get(sent["image_id"]) if isinstance(sent["image_id"], str) else None
    if task is None or task.metric != sent["metric"]:
        abort(REFUSED, "image_id, metric: expected an image of this plan, and the metric of its question.")
    labeler = _labeler(sent["labeler"], store)
    given = (datetime.now(timezone.utc) - age).isoformat(timespec="milliseconds")
    store.add(key, Rating(task.image_id, labeler, task.metric, label, given, duration))
    return Response(status=204)


def _sent() -> dict[str, Any]:
    try:
        sent = json.loads(request.get_data())
    except (ValueError, RecursionError):
        abort(400, "Expected a JSON object.")
    if not isinstance(sent, dict) or sorted(sent) != sorted(FIELDS):
        abort(400, f"Expected a JSON object with {', '.join(FIELDS)} and nothing else.")
    return sent


def _whole(sent: dict[str, Any], name: str, low: int, high: int) -> int:
    found = sent[name]
    if type(found) is not int or not low <= found <= high:
        abort(REFUSED, f"{name}: expected a whole number from {low} to {high}.")
    return found


def _labeler(name: Any, store: RatingStore) -> str:
    """A name with normalized spaces and Unicode, so that one person is one labeler.

    Somebody who enters "Ann" when "ann" has ratings and "Ann" does not continues as "ann". Whoever has a key of their
    own has its name, whatever they enter.
    """
    name = g.get("labeler") or name
    found = unicodedata.normalize("NFC", " ".join(name.split())) if isinstance(name, str) else ""
    if not 1 <= len(found) <= LONGEST_NAME or not found.isprintable():
        abort(REFUSED, f"labeler: expected a name of 1 to {LONGEST_NAME} printable characters.")
    known = [each for each in store.labelers() if each.casefold() == found.casefold()]
    return found if found in known else next(iter(known), found)


def _report(error: UserError) -> Response:
    """The error in words for labelers; the full message, with its paths, goes to the console."""
    logger.error("%s", error)
    full = isinstance(error, DiskFullError)
    return Response(f"{FULL if full else UNWRITABLE}\n", 507 if full else 500, mimetype="text/plain")
