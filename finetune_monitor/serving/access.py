"""Who may open a page, what other sites may not do through a reader's browser, and the headers that say so."""

import hmac
from dataclasses import dataclass
from functools import partial

from flask import Flask, Response, abort, g, request
from werkzeug.exceptions import HTTPException, SecurityError

POLICY = "Content-Security-Policy"

HEADERS = {
    POLICY: (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}

COOKIE_SECONDS = 90 * 24 * 3600

FORBIDDEN = "This page opens only with the complete link that you were given."

UNKNOWN_HOST = "This page is not available at this address. Open it with the link that you were given."


@dataclass(frozen=True)
class Access:
    """Who may open the page.

    hosts: host names that requests may use; None for any.
    key: the key that the link must contain; None if only this machine has access, which needs no key.
    labelers: those with a key of their own, under whose name each one's answers are saved; nobody else has access.
        Empty if everyone has the same key.
    """

    hosts: tuple[str, ...] | None
    key: str | None = None
    labelers: tuple[str, ...] = ()

    def own_key(self, labeler: str) -> str:
        """The key of one labeler; it says nothing about the others' keys."""
        return hmac.new((self.key or "").encode(), labeler.encode(), "sha256").hexdigest()

    @property
    def keys(self) -> dict[str, str | None]:
        """Every key that opens the page, and the labeler that it belongs to, if any."""
        return {self.own_key(labeler): labeler for labeler in self.labelers} or {self.key or "": None}


def protect(app: Flask, access: Access, cookie: str, largest: int) -> None:
    """Let an application answer only those with access, with headers that keep other sites away.

    Args:
        cookie: the name under which a browser keeps its key.
        largest: bytes of a request.
    """
    app.config.update(TRUSTED_HOSTS=access.hosts and list(access.hosts), MAX_CONTENT_LENGTH=largest)
    app.before_request(partial(_guard, access, cookie))
    app.after_request(_add_headers)
    app.register_error_handler(HTTPException, _explain)


def keep_key(response: Response, access: Access, cookie: str) -> Response:
    """The response to a link with its key, which becomes a cookie; the page removes it from the URL."""
    if access.key is not None:
        response.set_cookie(cookie, g.key, COOKIE_SECONDS, httponly=True, samesite="Strict")
    return response


def is_loopback(address: str) -> bool:
    """Whether an IP address is reachable only from its own machine."""
    return address.startswith("127.") or address == "::1"


def _guard(access: Access, cookie: str) -> None:
    """Reject requests without access, and anything that another site might send through a reader's browser."""
    if access.key is None:
        if not is_loopback(request.remote_addr or ""):
            abort(403, "This page is available only on the machine that it runs on.")
    else:
        shown = [key for key in (request.args.get("key"), request.cookies.get(cookie)) if key is not None]
        valid = [(key, own) for each in shown for key, own in access.keys.items() if _equal(key, each)]
        if not valid:
            abort(403, FORBIDDEN)
        g.key, g.labeler = valid[0]
    if request.method == "POST":
        origin = request.headers.get("Origin")
        if origin is not None and origin.partition("://")[2] != request.host:  # a tunnel changes the scheme
            abort(403, "This is accepted only from the page itself.")
        if request.mimetype != "application/json":
            abort(415, "Expected application/json.")


def _equal(key: str, shown: str) -> bool:
    return hmac.compare_digest(key.encode(), shown.encode(errors="replace"))


def _add_headers(response: Response) -> Response:
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    return response


def _explain(error: HTTPException) -> Response:
    """The error as one plain sentence, which the page shows unchanged."""
    text = UNKNOWN_HOST if isinstance(error, SecurityError) else error.description
    return Response(f"{text}\n", error.code, mimetype="text/plain")
