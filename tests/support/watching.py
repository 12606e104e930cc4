"""The live view served in the test's own process, and a training that it watches."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest.mock import patch

import torch

from finetune_monitor.monitor.callback import FinetuneMonitor
from finetune_monitor.record.evaluation import StopReason
from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.serving.access import Access
from finetune_monitor.watching.pages import LivePages
from finetune_monitor.watching.runs import Watched
from finetune_monitor.watching.serving import make_app
from support import tiny
from support.loops import Brightness
from support.served import served_app

KEY = "k" * 32


@contextmanager
def served(place: Path, folder: Path) -> Iterator[str]:
    """The link to the live view of a folder; pages are written in `folder`."""
    app = make_app(Watched(place), LivePages(folder), Access(("localhost", "127.0.0.1"), KEY), 0)
    with served_app(app) as port:
        yield f"http://127.0.0.1:{port}/?key={KEY}"


def slow_training(run: Path, seconds_an_image: float = 0.4, every: int = 1000) -> int:
    """A loop of one's own, ten steps per second, whose images take their time; returns an exit status."""
    whole = Renderer._render_batch

    def slowly(self, bar, cells):
        time.sleep(seconds_an_image)
        return whole(self, bar, cells)

    pipe = tiny.stable_diffusion()
    grid = PromptGrid(["a photo of sks person", "a cat"], [0, 1], steps=1, size=(32, 32))
    with patch.object(Renderer, "_render_batch", slowly):
        monitor = FinetuneMonitor(pipe, grid, [Brightness()], run, every=every, hparams={"train.max_steps": 3000})
        monitor._renderer.batches.size = 1
        monitor.start()
        for step in range(1, 3001):
            time.sleep(0.1)
            with torch.no_grad():
                pipe.vae.decoder.conv_out.bias += 0.002
            if monitor.on_step_end(step):
                break
        monitor.close(StopReason.MAX_STEPS)
    return 0
