"""Find model files: by path, in a cache, or as a download with a checked SHA-256; otherwise fail within seconds."""

import http.client
import os
import threading
import urllib.error
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from tqdm import tqdm

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import fsync, sha256, staged_beside
from finetune_monitor.base.paths import user_path
from finetune_monitor.models.finite import check_weights

PROBE_SECONDS = 4.0
"""How long a server may take to respond before it counts as unreachable."""

READ_SECONDS = 30.0
"""How long a download may stall."""


@dataclass(frozen=True)
class PublishedFile:
    """A file that is published by a third party.

    filename: its name in the cache.
    purpose: what it is, for messages.
    sha256: of the complete file; None if nobody has published one, and only the length is checked.
    hash_origin: the source of the hash, if not the publisher.
    torch_cache: facenet-pytorch may have already downloaded it to `$TORCH_HOME/checkpoints`.
    instead: an alternative that needs no download.
    """

    filename: str
    url: str
    purpose: str
    sha256: str | None
    hash_origin: str = ""
    torch_cache: bool = False
    instead: str = ""

    def places(self) -> list[Path]:
        """The paths where the file may be, in search order; a download goes to the last one."""
        own = cache_folder() / self.filename
        return [torch_checkpoints() / self.filename, own] if self.torch_cache else [own]


EMBEDDED = "recognizer: dlib, which comes with the package"


def _facenet(filename: str, trained_on: str, digest: str | None, origin: str) -> PublishedFile:
    url = f"https://github.com/timesler/facenet-pytorch/releases/download/v2.2.9/{filename}"
    purpose = f"the face recognizer InceptionResnetV1 ({trained_on})"
    return PublishedFile(filename, url, purpose, digest, origin, torch_cache=True, instead=EMBEDDED)


RECOGNIZERS = {
    "vggface2": _facenet(
        "20180402-114759-vggface2.pt",
        "VGGFace2",
        "281cebca8662831adb987a874bdcb36e73f5b1c6dc5ee5878f305e985625d99b",
        "the publisher states none; several independent projects pin this one for the same URL",
    ),
    "casia-webface": _facenet(
        "20180408-102900-casia-webface.pt", "CASIA-WebFace", None, "neither the publisher nor anybody else states one"
    ),
    "sface": PublishedFile(
        "face_recognition_sface_2021dec.onnx",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_recognition_sface/face_recognition_sface_2021dec.onnx",
        "the face recognizer SFace (OpenCV's zoo, Apache-2.0)",
        "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        instead=EMBEDDED,
    ),
}
"""Weights from facenet-pytorch, which itself does not check hashes, and from OpenCV's zoo."""


SSCD = {
    "disc_mixup": PublishedFile(
        "sscd_disc_mixup.torchvision.pt",
        "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchvision.pt",
        "the copy detector SSCD (ResNet-50 trained on DISC, MIT)",
        None,
        instead="leave monitor.metrics.copying.sscd out; copies are then detected by luminance only",
    ),
}
"""Weights of SSCD by the name of their training; the publisher recommends this one but states no hash."""


def cache_folder() -> Path:
    """`$FINETUNE_MONITOR_CACHE`, else `finetune_monitor` in `$XDG_CACHE_HOME` or `~/.cache`."""
    own = os.environ.get("FINETUNE_MONITOR_CACHE")
    return user_path(own) if own else _user_cache() / "finetune_monitor"


def torch_checkpoints() -> Path:
    """The folder in which facenet-pytorch stores its downloads."""
    home = os.environ.get("TORCH_HOME")
    return (user_path(home) if home else _user_cache() / "torch") / "checkpoints"


def find_weights(source: PublishedFile) -> Path:
    """A local copy of the file with verified content: from a cache, or downloaded.

    Raises:
        UserError: a copy has the wrong content, or there is none and it cannot be downloaded. Without network access
            this takes seconds, and the message explains how to provide the file manually.
    """
    for place in source.places():
        if place.is_file():
            problem = _hash_problem(source, place)
            if problem:
                raise UserError(f"{place}: {problem}; delete it and rerun to download it again, or replace it")
            return place
    return _download(source, source.places()[-1])


def read_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of a `.safetensors` or PyTorch file, on the CPU.

    Raises:
        UserError: the file is damaged, holds anything other than tensors by name, has values that are not finite, or
            holds code, which is never run (`torch.load(weights_only=True)`).
    """
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected pickle protocol")  # read or refused here
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle raises anything
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: refused because it is damaged or holds more than plain tensors ({reason[0]}); "
            "expected a state dict of tensors; if you trust it, convert it to .safetensors"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: found a {type(content).__name__}, expected a state dict (tensors by name)")
    check_weights(path, content)
    return dict(content)


def probe(url: str, headers: Mapping[str, str] | None = None, method: str = "HEAD") -> int | str:
    """The HTTP status of a server's response, or the reason why there is none within `PROBE_SECONDS`.

    Runs in its own thread because DNS lookups have no timeout.
    """
    request = urllib.request.Request(url, method=method)
    for key, value in (headers or {}).items():
        request.add_unredirected_header(key, value)  # a token is only for this host
    answers: list[int | str] = []
    thread = threading.Thread(target=lambda: answers.append(_status(request)), daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers[0] if answers else f"no answer within {PROBE_SECONDS:g} s"


@contextmanager
def undisturbed_rng() -> Iterator[None]:
    """Initialize a network without changing torch's random state; its weights are loaded right afterwards.

    Also hides the warning of torch before 2.6 about how facenet-pytorch reads its own three weight files.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using `torch.load`", category=FutureWarning)
        yield


def _user_cache() -> Path:
    return user_path(os.environ.get("XDG_CACHE_HOME") or "~/.cache")


def _hash_problem(source: PublishedFile, path: Path) -> str | None:
    """The problem with a file's content; None if there is none, or if nobody has published a hash."""
    found = sha256(path) if source.sha256 else None
    if found == source.sha256:
        return None
    origin = f" ({source.hash_origin})" if source.hash_origin else ""
    return f"not {source.purpose}: found sha256 {found}, expected {source.sha256}{origin}"


def _download(source: PublishedFile, target: Path) -> Path:
    """Download to `target`: stage, check length and hash, fsync, rename; a failure leaves nothing behind."""
    answer = probe(source.url)
    if isinstance(answer, str):
        raise UserError(_by_hand(source, answer))
    staged = staged_beside(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(source, staged)
        problem = _hash_problem(source, staged)
        if problem:
            raise UserError(f"{source.url}: {problem}; the download was discarded; try again, or from another network")
        fsync(staged)
        staged.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(_by_hand(source, f"the download failed: {error}")) from error
    finally:
        staged.unlink(missing_ok=True)
    fsync(target.parent)
    return target


def _fetch(source: PublishedFile, staged: Path) -> None:
    with urllib.request.urlopen(source.url, timeout=READ_SECONDS) as response, staged.open("xb") as file:
        expected = int(response.headers.get("Content-Length") or 0)
        with tqdm(total=expected or None, unit="B", unit_scale=True, desc=source.filename) as progress:
            for chunk in _chunks(response):
                file.write(chunk)
                progress.update(len(chunk))
        if expected and file.tell() != expected:
            raise OSError(f"the connection ended after {file.tell()} of {expected} bytes")


def _chunks(response: http.client.HTTPResponse) -> Iterator[bytes]:
    while chunk := response.read(1 << 20):
        yield chunk


def _by_hand(source: PublishedFile, reason: str) -> str:
    places = [str(place) for place in source.places()]
    lines = [
        f"{source.filename}: {source.purpose} is required but not available ({reason})",
        f"  looked in: {', '.join(places)}",
        f"  published at: {source.url}",
        f"  download it on another machine and put it at: {places[-1]}",
        f"  expected sha256: {source.sha256 or 'none is published'}",
    ]
    if source.instead:
        lines.append(f"  without a download: {source.instead}")
    return "\n".join(lines)


def _status(request: urllib.request.Request) -> int | str:
    try:
        with urllib.request.urlopen(request, timeout=PROBE_SECONDS) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except (OSError, http.client.HTTPException) as error:
        return f"no network access or no such server: {getattr(error, 'reason', error)}"
