"""The pages' JavaScript under a linter: no undefined or unused name over all scripts of a page, nothing suspicious."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from support.places import ROOT

PAGES = tuple(f"finetune_monitor/{place}/page" for place in ("report", "studies/labeling", "watching"))

STRICT = '"use strict";\n'

RULES = {
    "no-undef": "error",
    "no-unused-vars": ["error", {"varsIgnorePattern": "^finetuneMonitor$"}],  # the data's own scripts call it
    "no-shadow-restricted-names": "error",
    "no-redeclare": "error",
    "eqeqeq": "error",
    "no-var": "error",
    "prefer-const": "error",
    "no-eval": "error",
    "unicorn/no-array-sort": "off",  # what is sorted here are copies
    "unicorn/no-array-reverse": "off",
    "unicorn/consistent-function-scoping": "off",
    "no-shadow": "off",  # all scripts share one scope, where `mean` and `side` are functions
}


def lint(scripts: list[Path], folder: Path) -> subprocess.CompletedProcess:
    """Lint scripts as the browser runs them: in one scope, one after the other."""
    together = folder / "page.js"
    bodies = [script.read_text().removeprefix(STRICT) for script in scripts]
    together.write_text(STRICT + "\n".join(bodies))
    config = {
        "env": {"browser": True, "es2023": True},
        "globals": {"Plotly": "readonly"},
        "categories": {"correctness": "error", "suspicious": "error"},
        "rules": RULES,
    }
    (folder / "oxlintrc.json").write_text(json.dumps(config))
    command = [Path(sys.executable).with_name("oxlint"), "--config", folder / "oxlintrc.json", together]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("page", PAGES)
def test_the_scripts_of_a_page_are_without_complaint(page, tmp_path):
    done = lint(sorted((ROOT / page).glob("*.js")), tmp_path)
    assert done.returncode == 0, done.stdout


def test_a_name_that_no_script_defines_is_a_complaint(tmp_path):
    (tmp_path / "a.js").write_text('"use strict";\nfunction one() {\n  two();\n}\none();\n')
    done = lint([tmp_path / "a.js"], tmp_path)
    assert done.returncode != 0
    assert "'two' is not defined" in done.stdout
