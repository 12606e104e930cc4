"""The live view as a web application: the list of runs, their pages with a strip of controls, and requests to runs."""

import json
from collections.abc import Callable
from functools import partial
from typing import Any

from flask import Flask, Response, abort, request, send_from_directory

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import read_regular
from finetune_monitor.base.text import visible
from finetune_monitor.record import live
from finetune_monitor.record.live import EVALUATE, PAUSE, RESUME, STOP
from finetune_monitor.record.run_directory import IN_PROGRESS
from finetune_monitor.report.page import INDEX
from finetune_monitor.serving.access import POLICY, Access, keep_key, protect
from finetune_monitor.watching import PAGE
from finetune_monitor.watching.pages import LivePages
from finetune_monitor.watching.runs import Watched, WatchedRun

BODY = 200
"""Maximum bytes of a request."""

LARGEST_PREVIEW = 1_000_000
"""Bytes of an image of the evaluation in progress; they have about 30,000."""

ASSETS = {"list.css": "text/css", "list.js": "text/javascript", "strip.css": "text/css", "strip.js": "text/javascript"}

STRIP = '<link rel="stylesheet" href="/strip.css"><script src="/strip.js" data-written="{}" defer></script></head>'

REQUESTS = (STOP, EVALUATE, PAUSE, RESUME)


def make_app(watched: Watched, pages: LivePages, access: Access, port: int) -> Flask:
    """The application for the runs of a folder."""
    app = Flask("finetune_monitor.watching", static_folder=None)
    cookie = f"watch-{port}"
    protect(app, access, cookie, BODY)
    app.register_error_handler(UserError, _report)
    views: dict[str, Callable[..., Any]] = {
        "/": partial(_start, watched, access, cookie),
        "/<any({}):name>".format(", ".join(f'"{name}"' for name in ASSETS)): _asset,
        "/favicon.ico": lambda: Response(status=204),
        "/api/runs": partial(_list, watched),
        "/api/runs/<identity>": partial(_run, watched, pages),
        "/runs/<identity>/": partial(_page, watched, pages),
        "/runs/<identity>/in_progress/<name>": partial(_preview, watched),
        "/runs/<identity>/<path:path>": partial(_file, watched, pages),
    }
    for number, (path, view) in enumerate(views.items()):
        app.add_url_rule(path, str(number), view)
    app.add_url_rule("/api/runs/<identity>/requests", "ask", partial(_ask, watched), methods=["POST"])
    return app


def _start(watched: Watched, access: Access, cookie: str) -> Response:
    """The list, or the page of the only run that was asked for."""
    if watched.is_run:
        [identity] = watched.runs()
        return keep_key(Response("", 302, {"Location": f"/runs/{identity}/"}), access, cookie)
    return keep_key(Response((PAGE / "list.html").read_bytes(), mimetype="text/html"), access, cookie)


def _asset(name: str) -> Response:
    return Response((PAGE / name).read_bytes(), mimetype=ASSETS[name])


def _found(watched: Watched, identity: str) -> WatchedRun:
    return watched.runs().get(identity) or abort(404, "There is no such run; it may have been moved or deleted.")


def _list(watched: Watched) -> dict[str, Any]:
    runs, names = watched.runs(), watched.names()
    shown = [{"name": names[identity], **run.glance()} for identity, run in runs.items()]
    shown.sort(key=lambda run: run["state"] not in live.STATES)  # those in progress first, then by their paths
    return {"folder": visible(str(watched.place)), "runs": shown}


def _run(watched: Watched, pages: LivePages, identity: str) -> dict[str, Any]:
    """The state of one run, and of its page."""
    run = _found(watched, identity)
    page = pages.of(run)
    name, more = watched.names()[identity], not watched.is_run
    return {"name": name, "list": more, "page": page.written, "problem": visible(page.problem), **run.glance()}


def _page(watched: Watched, pages: LivePages, identity: str) -> Response:
    """The page of a run with the strip; as long as it has not been written, only the strip."""
    page = pages.of(_found(watched, identity))
    if not page.written:
        return Response((PAGE / "waiting.html").read_bytes(), mimetype="text/html")
    strip = STRIP.format(page.written).encode()  # before the file is read: the strip then notices what comes later
    content = (page.folder / INDEX).read_bytes().replace(b"</head>", strip, 1)
    content = content.replace(b"default-src 'none';", b"default-src 'none'; connect-src 'self';", 1)
    return Response(content, mimetype="text/html", headers={POLICY: "frame-ancestors 'none'"})  # it has its own


def _file(watched: Watched, pages: LivePages, identity: str, path: str) -> Response:
    page = pages.of(_found(watched, identity))
    if path == INDEX or not (page.folder / INDEX).is_file():
        abort(404, "There is no such file.")
    return send_from_directory(page.folder, path, max_age=0)


def _preview(watched: Watched, identity: str, name: str) -> Response:
    """An image of the evaluation in progress."""
    run = _found(watched, identity)
    if name not in [path.name for path in live.previews(run.folder)]:
        abort(404, "The evaluation has ended.")
    try:
        return Response(read_regular(run.folder / IN_PROGRESS / name, LARGEST_PREVIEW), mimetype="image/jpeg")
    except OSError:
        abort(404, "The evaluation has ended.")


def _ask(watched: Watched, identity: str) -> Response:
    """Ask something of a run."""
    run, wanted = _found(watched, identity), _wanted()
    if reason := run.glance()["cannot"]:
        abort(409, reason)
    if wanted == RESUME:
        live.withdraw(run.folder, PAUSE)
    else:
        live.request(run.folder, wanted)
    return Response(status=204)


def _wanted() -> str:
    try:
        sent = json.loads(request.get_data())
    except (ValueError, RecursionError):
        abort(400, "Expected a JSON object.")
    if not isinstance(sent, dict) or list(sent) != ["request"] or sent["request"] not in REQUESTS:
        abort(400, f"Expected a JSON object with request: {', '.join(REQUESTS)}.")
    return str(sent["request"])


def _report(error: UserError) -> Response:
    return Response(f"{visible(str(error))}\n", 409, mimetype="text/plain")
