"""Warnings on one line, without the place in the source that raised them."""

import subprocess
import sys

WORK = """
import logging, warnings
from finetune_monitor.base.warnings_in_words import plain_warnings
{before}
with plain_warnings():
    warnings.warn("photos/a.jpg: found no face")
    logging.getLogger("finetune_monitor.training").warning("%s: passed over", "b.txt")
    logging.getLogger("finetune_monitor.training").error("the loss is not finite")
    logging.getLogger("finetune_monitor.training").info("nobody reads this")
"""


def said(before: str = "") -> list[str]:
    command = [sys.executable, "-c", WORK.format(before=before)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr.splitlines()


def test_each_says_what_it_is():
    assert said() == [
        "warning: photos/a.jpg: found no face",
        "warning: b.txt: passed over",
        "error: the loss is not finite",
    ]


def test_a_log_that_somebody_has_configured_stays_as_it_is():
    configured = 'logging.basicConfig(format="%(name)s %(message)s")'
    assert said(configured)[1:] == [
        "finetune_monitor.training b.txt: passed over",
        "finetune_monitor.training the loss is not finite",
    ]
