"""Warnings on one line, without the place in the source that raised them."""

import subprocess

import pytest

from support.places import DEMO
from support.preloaded import python

WORK = """
import logging, warnings
from finetune_monitor.base.warnings_in_words import plain_warnings
{before}
with plain_warnings():
    warnings.warn("photos/a.jpg: found no face")
    logging.getLogger("finetune_monitor.training").warning("%s: passed over", "b.txt")
    logging.getLogger("finetune_monitor.training").error("the loss is not finite")
    logging.getLogger("finetune_monitor.training").info("nobody reads this")
{after}
"""

THIS_LOG = """
import logging, warnings
{before}
warnings.warn("seen")
logging.getLogger("finetune_monitor.training").warning("b.txt: passed over")
"""

LOAD_CLIP = f"""
from finetune_monitor.models.clip import ClipEncoder
ClipEncoder({str(DEMO / "clip")!r})
assert logging.getLogger().handlers, "open_clip no longer configures the log, so this test shows nothing"
"""

FIND_SECRETS = """
from finetune_monitor.base.redaction import without_secrets
without_secrets("a photo")
"""


def run(code: str) -> list[str]:
    return subprocess.run([python(), "-c", code], capture_output=True, text=True, check=True).stderr.splitlines()


def said(before: str = "", after: str = "") -> list[str]:
    return run(WORK.format(before=before, after=after))


def test_each_says_what_it_is():
    assert said() == [
        "warning: photos/a.jpg: found no face",
        "warning: b.txt: passed over",
        "error: the loss is not finite",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("loaded", [LOAD_CLIP, FIND_SECRETS], ids=["clip", "secrets"])
def test_each_is_said_once_whatever_a_library_does_to_the_log(loaded):
    inside = "\n".join(f"    {line}" for line in loaded.strip().splitlines())
    code = WORK.replace("with plain_warnings():\n", f"with plain_warnings():\n{inside}\n")
    assert run(code.format(before="", after="")) == said()


@pytest.mark.slow
def test_a_program_sees_its_own_warnings_after_secrets_were_looked_for():
    assert any("UserWarning: seen" in line for line in run(THIS_LOG.format(before=FIND_SECRETS)))
    captured = run(THIS_LOG.format(before=f"logging.basicConfig(); logging.captureWarnings(True){FIND_SECRETS}"))
    assert any(line.startswith("WARNING:py.warnings:") and "seen" in line for line in captured)


def test_afterwards_the_log_is_as_it_was():
    after = 'logging.basicConfig(format="%(name)s"); logging.getLogger("finetune_monitor.training").warning("later")'
    assert said(after=after)[-1] == "finetune_monitor.training"


def test_a_log_of_the_package_that_somebody_has_configured_stays_as_it_is():
    configured = (
        "handler = logging.StreamHandler(); handler.setFormatter(logging.Formatter('mine %(message)s'))\n"
        "logging.getLogger('finetune_monitor').addHandler(handler)"
    )
    assert said(configured)[1:] == ["mine b.txt: passed over", "mine the loss is not finite"]


def test_a_log_that_somebody_has_configured_stays_as_it_is():
    configured = 'logging.basicConfig(format="%(name)s %(message)s")'
    assert said(configured)[1:] == [
        "finetune_monitor.training b.txt: passed over",
        "finetune_monitor.training the loss is not finite",
    ]
