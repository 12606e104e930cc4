"""What CONTRIBUTING.md says of the package is so: the tree of its rooms, and the example of a metric."""

import ast
import re

import numpy as np
from PIL import Image

from finetune_monitor.metrics import Metric, RunContext, describe
from finetune_monitor.record.grid import PromptGrid
from support.places import ROOT

PACKAGE = ROOT / "finetune_monitor"
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()


def first_line(file) -> str:
    return (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]


def listed() -> dict[str, str]:
    """The tree in CONTRIBUTING.md: path below the package to its description."""
    tree = re.search(r"```\n(__main__\.py.*?)```", CONTRIBUTING, re.DOTALL)[1]
    found, room = {}, ""
    for line in tree.splitlines():
        indent, name, words = re.fullmatch(r"( *)(\S+) +(.*)", line).groups()
        room = room if indent else name
        found[room + name if indent else name] = words
    return found


def test_the_tree_and_its_descriptions_are_those_of_the_package():
    folders = {file.parent for file in PACKAGE.rglob("__init__.py")} - {PACKAGE}
    rooms = {f"{folder.relative_to(PACKAGE).as_posix()}/": first_line(folder / "__init__.py") for folder in folders}
    files = {name: first_line(PACKAGE / name) for name in ("__main__.py", "cli.py")}
    assert listed() == {**files, **rooms}


def test_the_order_of_the_tree_is_the_one_that_is_checked():
    contract = re.search(r"^layers = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)[1]
    layers = [layer for names in re.findall(r'"(.*?)"', contract) for layer in names.split(" | ")]
    assert [name.rstrip("/").removesuffix(".py") for name in listed() if name.count("/") < 2] == layers


def test_the_example_of_a_metric_is_one():
    example = re.search(r'```python\n("""How sharp.*?)```', CONTRIBUTING, re.DOTALL)[1]
    names: dict = {}
    exec(compile(example, "CONTRIBUTING.md", "exec"), names)
    kind = names["Sharpness"]
    metric = kind.for_run(kind.Options(), RunContext([], [], "cpu"))
    assert isinstance(metric, Metric)
    cells = PromptGrid(["a"], [0, 1]).cells
    half = Image.fromarray(np.repeat(np.array([[0], [255]], dtype=np.uint8), 8, axis=1))
    scores = metric.score([Image.new("RGB", (8, 8), "red"), half], cells)["sharpness"]
    assert scores.tolist() == [0.0, 127.5]
    assert describe(metric).columns["sharpness"].bounds == kind.columns["sharpness"].bounds == (0.0, 127.5)
