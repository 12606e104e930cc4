"""Class images that several runs share: each is generated once, and a run says what it waits for."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock

from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.training.class_images import class_images
from finetune_monitor.training.config import DataConfig, GridConfig
from support import sweeps


@pytest.fixture
def images(tmp_path, pipeline):
    """What a run finds or generates in the folder: three class images."""
    data = DataConfig(
        instance_images=tmp_path,
        instance_prompt="p",
        class_images=tmp_path / "class",
        class_count=3,
        class_prompt="q",
        resolution=64,
    )
    return lambda: class_images(pipeline, data, GridConfig(prompts=["p"], steps=2), None)


def test_runs_that_share_a_folder_generate_each_image_once(images, monkeypatch):
    generated, render = [], Renderer.render

    def counted(self, cells):
        generated.extend(cells)
        return render(self, cells)

    monkeypatch.setattr(Renderer, "render", counted)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: images(), range(2))
    assert len(generated) == len(first) == 3
    assert first == second


def test_a_run_says_that_it_waits_for_another(images, tmp_path, caplog):
    (tmp_path / "class").mkdir()
    with ThreadPoolExecutor(1) as pool:
        with FileLock(tmp_path / "class/.lock"):
            waiting = pool.submit(images)
            said = f"{tmp_path / 'class'}: waiting for the run that generates class images"
            sweeps.wait_for(lambda: said in caplog.text, 10)
            assert not waiting.done()
        assert len(waiting.result(60)) == 3
