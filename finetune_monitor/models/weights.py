"""Where model files come from: a path, a cache, or a download whose SHA-256 is checked; or an error in seconds."""

import http.client
import os
import pickle
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
from safetensors import SafetensorError
from safetensors.torch import load_file
from tqdm import tqdm

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import STAGING, fsync, sha256

PROBE_SECONDS = 4.0
"""How long a server may take to answer at all before it counts as out of reach."""

READ_SECONDS = 30.0
"""How long a download may stall."""


@dataclass(frozen=True)
class PublishedFile:
    """A file that is published outside.

    filename: its name in the cache.
    purpose: what it is, for messages.
    sha256: of the whole file; None where nobody has published one, then only its length is checked.
    hash_origin: who says so, where it is not the publisher.
    torch_cache: facenet-pytorch may have downloaded it already into `$TORCH_HOME/checkpoints`.
    instead: what does its work without a download.
    """

    filename: str
    url: str
    purpose: str
    sha256: str | None
    hash_origin: str = ""
    torch_cache: bool = False
    instead: str = ""

    def places(self) -> list[Path]:
        """Where the file may lie, in the order of looking; the last is where a download goes."""
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
        "the publisher states none; several independent projects pin this one for the same address",
    ),
    "casia-webface": _facenet(
        "20180408-102900-casia-webface.pt", "CASIA-WebFace", None, "the publisher states none, and nobody else"
    ),
    "sface": PublishedFile(
        "face_recognition_sface_2021dec.onnx",
        "https://github.com/opencv/opencv_zoo/raw/main/models/face_recognition_sface/face_recognition_sface_2021dec.onnx",
        "the face recognizer SFace (OpenCV's zoo, Apache-2.0)",
        "0ba9fbfa01b5270c96627c4ef784da859931e02f04419c829e83484087c34e79",
        instead=EMBEDDED,
    ),
}
"""Weights of facenet-pytorch, which itself checks no hash, and of OpenCV's zoo."""


SSCD = {
    "disc_mixup": PublishedFile(
        "sscd_disc_mixup.torchvision.pt",
        "https://dl.fbaipublicfiles.com/sscd-copy-detection/sscd_disc_mixup.torchvision.pt",
        "the copy detector SSCD (ResNet-50 trained on DISC, MIT)",
        None,
        instead="leave monitor.metrics.copying.sscd out; copies are then found by luminance alone",
    ),
}
"""Weights of SSCD by the name of their training; the publisher recommends this one, and states no hash."""


def cache_folder() -> Path:
    """`$FINETUNE_MONITOR_CACHE`, else `finetune_monitor` in `$XDG_CACHE_HOME` or `~/.cache`."""
    own = os.environ.get("FINETUNE_MONITOR_CACHE")
    return Path(own).expanduser() if own else _user_cache() / "finetune_monitor"


def torch_checkpoints() -> Path:
    """The folder in which facenet-pytorch keeps what it downloads."""
    home = os.environ.get("TORCH_HOME")
    return (Path(home).expanduser() if home else _user_cache() / "torch") / "checkpoints"


def find_weights(source: PublishedFile) -> Path:
    """A local copy of the file with the right content: from the caches, else downloaded.

    Raises:
        UserError: a copy has the wrong content, or there is none and it cannot be downloaded. Without a network this
            takes seconds, and the message says how to provide the file by hand.
    """
    for place in source.places():
        if place.is_file():
            problem = _hash_problem(source, place)
            if problem:
                raise UserError(f"{place}: {problem}; delete it and start again to download it, or put the right one")
            return place
    return _download(source, source.places()[-1])


def read_state_dict(path: Path) -> dict[str, Any]:
    """The tensors of a `.safetensors` or PyTorch file, on the CPU.

    Raises:
        UserError: it is damaged, holds anything but tensors by name, or holds code, which is never run
            (`torch.load(weights_only=True)`).
    """
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", message="Detected pickle protocol")  # it is read, or refused here
                content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise UserError(
            f"{path}: refused, since it is damaged or holds more than plain tensors ({reason[0]}); "
            "expected a state dict of tensors; convert it to .safetensors where you trust it"
        ) from error
    if not isinstance(content, Mapping) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path}: found a {type(content).__name__}, expected a state dict, tensors by name")
    return dict(content)


def probe(url: str, headers: Mapping[str, str] | None = None, method: str = "HEAD") -> int | str:
    """The HTTP status with which a server answers, or why there is no answer within `PROBE_SECONDS`.

    In a thread of its own, for looking a name up has no timeout.
    """
    request = urllib.request.Request(url, method=method)
    for key, value in (headers or {}).items():
        request.add_unredirected_header(key, value)  # a token is for this host alone
    answers: list[int | str] = []
    thread = threading.Thread(target=lambda: answers.append(_status(request)), daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answers[0] if answers else f"no answer within {PROBE_SECONDS:g} s"


@contextmanager
def undisturbed_rng() -> Iterator[None]:
    """Initialize a network without touching torch's random state; its weights are loaded over right after.

    Also hides what torch before 2.6 says about facenet-pytorch's reading of its own three weight files.
    """
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are using `torch.load`", category=FutureWarning)
        yield


def _user_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def _hash_problem(source: PublishedFile, path: Path) -> str | None:
    """What is wrong with a file's content; None where nothing is, or nobody has published a hash."""
    found = sha256(path) if source.sha256 else None
    if found == source.sha256:
        return None
    origin = f" ({source.hash_origin})" if source.hash_origin else ""
    return f"not {source.purpose}: found sha256 {found}, expected {source.sha256}{origin}"


def _download(source: PublishedFile, target: Path) -> Path:
    """Download into `target`: staged, length and hash checked, fsynced, renamed; nothing is left of a failure."""
    answer = probe(source.url)
    if isinstance(answer, str):
        raise UserError(_by_hand(source, answer))
    staged = target.with_name(f"{STAGING}{os.getpid()}-{target.name}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _fetch(source, staged)
        problem = _hash_problem(source, staged)
        if problem:
            raise UserError(f"{source.url}: {problem}; nothing was kept; try again, or from another network")
        fsync(staged)
        staged.replace(target)
    except (OSError, http.client.HTTPException) as error:
        raise UserError(_by_hand(source, f"the download failed: {error}")) from error
    finally:
        staged.unlink(missing_ok=True)
    fsync(target.parent)
    return target


def _fetch(source: PublishedFile, staged: Path) -> None:
    with urllib.request.urlopen(source.url, timeout=READ_SECONDS) as response, staged.open("wb") as file:
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
        f"{source.filename}: {source.purpose} is needed and cannot be had ({reason})",
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
        return f"no network or no server: {getattr(error, 'reason', error)}"
