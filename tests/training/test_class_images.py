"""Class images that several runs share: each is generated once, and a run says what it waits for."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from filelock import FileLock
from pydantic import ValidationError

from finetune_monitor.record.grid import PromptGrid
from finetune_monitor.rendering.renderer import Renderer
from finetune_monitor.training.class_images import class_images, with_prompts
from finetune_monitor.training.config import DataConfig
from support import sweeps


def three(folder, prompt="q") -> DataConfig:
    """Three class images in `folder`/class."""
    return DataConfig(
        instance_images=folder,
        instance_prompt="p",
        class_images=folder / "class",
        class_count=3,
        class_prompt=prompt,
        resolution=64,
    )


@pytest.fixture
def images(tmp_path, pipeline):
    """What a run finds or generates in the folder: three class images."""
    return lambda: class_images(pipeline, three(tmp_path), PromptGrid(["p"], steps=2), None)


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


def test_several_class_prompts_take_turns_and_are_captions(tmp_path, pipeline):
    data = three(tmp_path, ["q", "q in gray"])
    found = class_images(pipeline, data, PromptGrid(["p"], steps=1), None)
    assert [photo.prompt for photo in with_prompts(found, data)] == ["q", "q in gray", "q"]
    more = data.model_copy(update={"class_count": 4})
    assert class_images(pipeline, more, PromptGrid(["p"], steps=1), None)[:3] == found
    assert (tmp_path / "class/class-000003.txt").read_text() == "q in gray"


def test_captions_beside_class_images_are_their_prompts(images, tmp_path):
    found = images()
    assert not list((tmp_path / "class").glob("*.txt")), "a single prompt needs no captions"
    found[1].with_suffix(".txt").write_text("somebody in the rain")
    data = three(tmp_path)
    assert [photo.prompt for photo in with_prompts(found, data)] == ["q", "somebody in the rain", "q"]
    ignored = data.model_copy(update={"captions": False})
    assert [photo.prompt for photo in with_prompts(found, ignored)] == ["q"] * 3


def test_several_class_prompts_without_captions_are_refused(tmp_path):
    with pytest.raises(ValidationError, match=r"(?s)class_prompt: found 2 prompts.*captions is false"):
        DataConfig(instance_images=tmp_path, instance_prompt="p", class_prompt=["q", "r"], captions=False)
