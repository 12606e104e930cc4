"""Each optional package is named with the line that installs it, before any long work; the core needs none of them."""

import re
import subprocess
import sys
from pathlib import Path
from runpy import run_module

import numpy as np
import pytest
import torch

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.extras import EXTRAS, is_installed, require
from finetune_monitor.cli import main
from finetune_monitor.sinks.wandb import WandbSink
from finetune_monitor.sweep.ray_session import prepare_ray
from finetune_monitor.training.optimizers import check_optimizer
from support.label_plans import write_small_plan

ROOT = Path(__file__).parents[2]


def without_extras(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python where no optional package can be imported."""
    packages = [name.partition(".")[0] for name in EXTRAS]
    script = f"import sys; sys.modules.update(dict.fromkeys({packages}))\n{code}"
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.fixture
def missing(monkeypatch):
    """Takes a package away at the import."""

    def take(name: str) -> None:
        for loaded in [module for module in sys.modules if module == name or module.startswith(name + ".")]:
            monkeypatch.delitem(sys.modules, loaded)
        monkeypatch.setitem(sys.modules, name, None)

    return take


def fit(folder: Path) -> None:
    (folder / "ratings.csv").write_text("image,mean\n" + "".join(f"{i}.png,{i % 9}\n" for i in range(40)))
    command = ["aesthetic", "fit", folder / "ratings.csv", "--images", folder, "--output", folder / "head"]
    fail(main([str(word) for word in command]))


def serve(folder: Path) -> None:
    write_small_plan(folder / "plan", images=1)
    fail(main(["label", "serve", str(folder / "plan"), "--port", "0"]))


def agree(folder: Path) -> None:
    fail(main(["agree", str(folder / "not-read.csv"), "-o", str(folder / "report")]))


def fail(status: int) -> None:
    """The command's words are on the standard error."""
    assert status == 2


def recognize(folder: Path) -> None:
    from finetune_monitor.models.recognizers import load_recognizer

    (folder / "r.onnx").write_bytes(b"")
    load_recognizer(folder / "r.onnx")


@pytest.mark.parametrize(
    ("package", "extra", "work"),
    [
        ("jinja2", "study", agree),
        ("matplotlib", "study", fit),
        ("wandb", "wandb", lambda folder: WandbSink()),
        ("onnxruntime", "onnx", recognize),
        ("optuna", "sweep", lambda folder: prepare_ray(None)),
        ("ray", "sweep", lambda folder: prepare_ray(None)),
        ("bitsandbytes", "optimizers", lambda folder: check_optimizer("adamw8bit", torch.device("cuda"))),
        ("prodigyopt", "optimizers", lambda folder: check_optimizer("prodigy", torch.device("cpu"))),
        ("lightning", "lightning", lambda folder: run_module("finetune_monitor.integrations.lightning")),
    ],
)
def test_a_missing_package_is_named_with_its_install_line(package, extra, work, missing, tmp_path, capsys):
    missing(package)
    try:
        work(tmp_path)
        said = capsys.readouterr().err
    except UserError as error:
        said = str(error)
    assert re.search(rf'needs the package {package}(\.\w+)?; pip install "finetune_monitor\[{extra}\]"', said)
    assert "Traceback" not in said
    assert not (tmp_path / "head").exists()


def test_a_package_that_is_there_but_lacks_another_says_which(monkeypatch):
    def broken(name):
        raise ImportError("libcudart.so.99: cannot open shared object file")

    monkeypatch.setattr("finetune_monitor.base.extras.import_module", broken)
    with pytest.raises(UserError, match=r"sweep: needs the package optuna; .* \(libcudart\.so\.99: cannot open"):
        require("optuna", "sweep")


def test_the_install_lines_name_extras_that_have_the_package():
    tomllib = pytest.importorskip("tomllib", reason="needs Python 3.11")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for package, extra in EXTRAS.items():
        assert any(re.match(rf"{package.partition('.')[0]}\b", requirement) for requirement in extras[extra])
        assert extra in extras["all"][0]


def test_only_what_can_be_found_is_installed():
    assert is_installed("numpy")
    assert not is_installed("no_such_package")
    assert not is_installed("no_such_package.inside")
    assert np is require("numpy", "a test")


HELP = (["--help"], ["sweep", "--help"])
IMPORTS = """
from finetune_monitor import *
import finetune_monitor.commands.compare, finetune_monitor.sweep.run, finetune_monitor.training.run
import finetune_monitor.studies.labeling.plan, finetune_monitor.studies.labeling.standalone
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "code", [IMPORTS, *(f"from finetune_monitor.cli import main; main({words})" for words in HELP)]
)
def test_the_core_works_without_any_of_them(code):
    ran = without_extras(code)
    assert ran.returncode == 0, ran.stderr
