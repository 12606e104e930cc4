"""The labeling page as a single HTML file for labelers elsewhere: it needs neither a server nor a network."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from finetune_monitor.base.files import write_named
from finetune_monitor.studies.labeling import PAGE
from finetune_monitor.studies.labeling.images import Gallery, image_jpeg
from finetune_monitor.studies.labeling.questions import question_of
from finetune_monitor.studies.labeling.tasks import Task

_STYLE = re.compile(r'<link rel="stylesheet" href="/([\w.]+)">')
_SCRIPT = re.compile(r'<script src="/([\w.]+)"></script>\n')
_ICON = re.compile(r'href="/([\w.]+\.svg)"')


def write_standalone(file: Path, gallery: Gallery, metrics: Sequence[str]) -> int:
    """Write the page with the images of these metrics; returns its size in bytes.

    Raises:
        UserError: an image can no longer be read, or the file cannot be written.
    """
    content = _page(gallery, metrics).encode()
    write_named(file, content)
    return len(content)


def _page(gallery: Gallery, metrics: Sequence[str]) -> str:
    """The served page with everything that it would load embedded; only its own scripts and styles may run."""
    numbers: dict[str, int] = {}
    questions = [_question(gallery, metric, numbers) for metric in metrics]
    content = {"plan": gallery.key, "seed": gallery.plan.seed, "questions": questions}
    data = [_data("plan", "application/json", json.dumps(content))]
    data += [_data(f"image-{numbers[name]}", "text/plain", text) for name, text in _images(gallery, numbers)]
    page = (PAGE / "label.html").read_text(encoding="utf-8")
    page, styles = _inlined(page, _STYLE, "style")
    page, scripts = _inlined(page, _SCRIPT, "script")
    page = _ICON.sub(lambda found: f'href="data:image/svg+xml;base64,{_base64((PAGE / found[1]).read_bytes())}"', page)
    policy = (
        f"default-src 'none'; script-src {' '.join(scripts)}; style-src {' '.join(styles)}; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    start = '<meta charset="utf-8">\n'
    page = page.replace(start, f'{start}<meta http-equiv="Content-Security-Policy" content="{policy}">\n')
    return page.replace("<!-- scripts -->\n", "".join(data))


def _question(gallery: Gallery, metric: str, numbers: dict[str, int]) -> dict[str, Any]:
    """A question and its tasks: image_id, number of the image, numbers of the photos.

    An image with two tasks is embedded once, under the same number, with the original first: the page needs to know the
    pairs for its order. Nothing on the screen reveals them, but the file's source does.
    """
    tasks = sorted(gallery.by_metric[metric], key=lambda task: task.repeat_of is not None)
    rows = []
    for task in tasks:
        names = [_name(task), *gallery.photos_beside(task)]
        image, *photos = (numbers.setdefault(name, len(numbers)) for name in names)
        rows.append([task.image_id, image, photos])
    return {**question_of(metric).to_json(), "tasks": rows}


def _name(task: Task) -> str:
    return f"image {task.repeat_of or task.image_id}"


def _images(gallery: Gallery, numbers: dict[str, int]) -> Iterator[tuple[str, str]]:
    """Every numbered image and photo, in Base64."""
    tasks = {_name(task): task for task in reversed(gallery.tasks)}
    for name in tqdm(numbers, "embedding images", unit="image"):
        yield name, _base64(gallery.encoded[name] if name in gallery.encoded else image_jpeg(tasks[name]))


def _inlined(page: str, what: re.Pattern[str], tag: str) -> tuple[str, list[str]]:
    """The page with the files that it loads embedded, and their hashes for its security policy."""
    hashes = []

    def inline(found: re.Match[str]) -> str:
        text = "\n" + (PAGE / found[1]).read_text(encoding="utf-8")
        hashes.append(f"'sha256-{_base64(hashlib.sha256(text.encode()).digest())}'")
        return f"<{tag}>{text}</{tag}>\n"

    return what.sub(inline, page), hashes


def _data(name: str, kind: str, text: str) -> str:
    """A data element that is never executed; no text in it can end it early."""
    harmless = text.replace("<", "\\u003c")
    return f'<script type="{kind}" id="{name}">{harmless}</script>\n'


def _base64(content: bytes) -> str:
    return base64.b64encode(content).decode()
