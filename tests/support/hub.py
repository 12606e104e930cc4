"""A stand-in for the Hugging Face Hub: the few endpoints that a push asks for, on this machine."""

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Hub:
    """What it knows and what it was asked.

    repositories: whether each is private.
    files: the content of the last commit, by path.
    large: files that arrived before their commit, by SHA-256.
    refuses: the beginning or the end of the path that is answered with 403.
    asked: the requests' methods and paths, in order.
    """

    address: str = ""
    repositories: dict[str, bool] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, bytes] = field(default_factory=dict)
    refuses: str = ""
    asked: list[str] = field(default_factory=list)
    tokens: set[str | None] = field(default_factory=set)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """The status and the content for a request."""
        if self.refuses and (path.endswith(self.refuses) or path.startswith(self.refuses)):
            return 403, {"error": "you may not write here"}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked['organization']}/{asked['name']}"
            self.repositories[name] = asked.get("private", asked.get("visibility") == "private")
            return 200, {"url": f"{self.address}/{name}", "name": name}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path.endswith("/preupload/main"):
            names = [each["path"] for each in json.loads(body)["files"]]
            modes = {name: "lfs" if name.endswith(".safetensors") else "regular" for name in names}
            return 200, {"files": [{"path": p, "uploadMode": mode, "shouldIgnore": False} for p, mode in modes.items()]}
        if path.endswith("/lfs/objects/batch"):
            objects = json.loads(body)["objects"]
            actions = [
                {**each, "actions": {"upload": {"href": f"{self.address}/lfs/{each['oid']}"}}} for each in objects
            ]
            return 200, {"transfer": "basic", "objects": actions}
        if path.startswith("/lfs/"):
            self.large[path.removeprefix("/lfs/")] = body
            return 200, {}
        if path.endswith("/commit/main"):
            rows = [json.loads(line) for line in body.splitlines()]
            written = [row["value"] for row in rows if row["key"] == "file"]
            large = [row["value"] for row in rows if row["key"] == "lfsFile"]
            self.files = {each["path"]: base64.b64decode(each["content"]) for each in written}
            self.files |= {each["path"]: self.large[each["oid"]] for each in large}
            return 200, {"commitUrl": f"{self.address}/owner/name/commit/1", "commitOid": "1" * 40, "hookOutput": ""}
        name = path.removeprefix("/api/models/")
        if method == "GET" and name in self.repositories:
            return 200, {"id": name, "private": self.repositories[name], "siblings": [], "tags": []}
        return 404, {"error": "Repository not found"}


@contextmanager
def listening_hub() -> Iterator[Hub]:
    """A hub that listens until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def respond(self) -> None:
            if self.path.startswith(("/api/models/", "/api/repos/")):  # and not what the library asks for itself
                hub.asked.append(f"{self.command} {self.path}")
                hub.tokens.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, content = hub.answer(self.command, self.path.partition("?")[0], body)
            self.send_response(status)
            if status == 404:
                self.send_header("X-Error-Code", "RepoNotFound")
            encoded = json.dumps(content).encode()
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(encoded)))
            self.end_headers()
            self.wfile.write(encoded)

        do_GET = do_POST = do_PUT = respond  # noqa: N815

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hub.address = f"http://127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield hub
        finally:
            server.shutdown()
