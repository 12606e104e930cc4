"""Encode images as PNG in threads, while others are rendered and scored."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import PngImagePlugin
from PIL.Image import Image

from finetune_monitor.base.images import PNG
from finetune_monitor.base.text import caption
from finetune_monitor.record.grid import Cell, PromptGrid

THREADS = min(4, os.cpu_count() or 1)


class PngEncoder:
    """Encodes the images of one evaluation at a time, each with a text that says how it was made.

    Pillow releases the GIL while it encodes, so rendering on a GPU does not wait. No thread is left after `finish`.
    """

    def __init__(self, grid: PromptGrid) -> None:
        self._grid = grid
        self._step = 0
        self._begun: dict[int, tuple[Image, Future[bytes]]] = {}
        self._threads: ThreadPoolExecutor | None = None

    def begin(self, step: int, cells: Sequence[Cell], images: Sequence[Image | None]) -> None:
        """Begin to encode images; those of an earlier step that were not asked for are forgotten."""
        if step != self._step:
            self.drop()
        self._step = step
        for cell, image in zip(cells, images, strict=True):
            known = self._begun.get(cell.index)
            if image is not None and (known is None or known[0] is not image):
                if self._threads is None:
                    self._threads = ThreadPoolExecutor(THREADS, "png")
                text = self._text(step, cell.as_recorded)
                self._begun[cell.index] = (image, self._threads.submit(_encoded, image, text))

    def finish(self, step: int, images: Sequence[Image | None]) -> list[bytes | None]:
        """The files of all images of an evaluation, in the grid's order; None where there is no image.

        Raises:
            OSError: an image cannot be encoded.
        """
        self.begin(step, self._grid.cells, images)
        cells = zip(self._grid.cells, images, strict=True)
        try:
            return [None if image is None else self._begun[cell.index][1].result() for cell, image in cells]
        finally:
            self.drop()

    def drop(self) -> None:
        """Forget what was begun, and end the threads."""
        self._begun = {}
        if self._threads is not None:
            self._threads.shutdown(cancel_futures=True)
            self._threads = None

    def _text(self, step: int, cell: Cell) -> PngImagePlugin.PngInfo:
        """PNG metadata that says how the image was made."""
        text = PngImagePlugin.PngInfo()
        prompts = {"prompt": caption(cell.prompt), "negative_prompt": caption(cell.negative_prompt)}
        made_by = {"step": step, **prompts, "seed": cell.seed}
        probe = {"probe": True} if cell.is_probe else {}
        for key, value in {**made_by, **probe, **self._grid.sampling}.items():
            text.add_itxt(f"finetune_monitor.{key}", str(value))
        return text


def _encoded(image: Image, text: PngImagePlugin.PngInfo) -> bytes:
    content = io.BytesIO()
    image.save(content, "PNG", pnginfo=text, **PNG)
    return content.getvalue()
