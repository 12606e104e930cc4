"""What comes with the package is found where no checkout is, and nothing of the user's is replaced by it."""

from pathlib import Path

from finetune_monitor.base import extras
from finetune_monitor.cli import main
from finetune_monitor.sweep.plan import make_plan
from finetune_monitor.sweep.spec import load_sweep
from finetune_monitor.training import main as training
from finetune_monitor.training.config import load_config
from finetune_monitor.training.shipped import SHIPPED, shipped, with_shipped

DEMO = Path("configs/demo.yaml")


def test_the_demos_config_is_valid_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = load_config(DEMO, ["monitor.metrics.clip_score.clip=mine"])
    assert Path(config.model) == SHIPPED / "assets/demo/stable-diffusion"
    assert config.data.instance_images.is_dir()
    assert Path(config.monitor.metrics.aesthetic.head).is_file()
    assert config.monitor.metrics.clip_score.clip == "mine"
    assert config.output_dir == Path("runs/demo")


def test_the_shipped_sweeps_can_be_planned_in_an_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = make_plan(load_sweep(Path("configs/sweep_photos_demo.yaml")), None)
    assert len(plan.trials) == 9
    assert Path(plan.validated(plan.trials[0]).model).is_dir()


def test_the_users_own_files_come_first_and_other_texts_stay(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "assets/demo/clip").mkdir(parents=True)
    texts = ["assets/demo/clip", "assets/demo/none", "configs", "", "a photo", str(SHIPPED)]
    content = {"a": [{"b": text} for text in texts], "c": 1, "d": None}
    assert with_shipped(content) == content
    assert shipped("assets/demo/photos/astronaut") == str(SHIPPED / "assets/demo/photos/astronaut")


def test_the_demo_needs_no_wandb(tmp_path, monkeypatch):
    def sinks(path: Path, overrides: list[str]) -> int:
        return len(load_config(path, overrides).monitor.sinks.chosen)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "main", sinks)
    monkeypatch.setattr(extras, "is_installed", lambda name: name != "wandb")
    assert main(["demo"]) == 2
    assert main(["demo", "monitor.sinks.report=null"]) == 1
