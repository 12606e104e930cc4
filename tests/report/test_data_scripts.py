"""Data as scripts: nothing in it can end the script, and missing is null."""

import json
import math

import pytest

from finetune_monitor.report.data_scripts import call


def parsed(script: bytes) -> list:
    text = script.decode("ascii")
    assert text.startswith("finetuneMonitor.f(")
    assert text.endswith(");\n")
    return json.loads(f"[{text[len('finetuneMonitor.f(') : -3]}]")


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (math.nan, None),
        (math.inf, None),
        (-math.inf, None),
        (0.123456789, 0.12346),
        (-1.23456789e-7, -1.2346e-7),
        (9.999999, 10.0),
        (-48213.70312, -48213.7031),  # a mean that the page shows with 3 decimals
        (1e300, 1e300),
        (123456, 123456),
        (True, True),
        ((1, [2.0, math.nan]), [1, [2.0, None]]),
        ({"a": None, 3: "x"}, {"a": None, "3": "x"}),
        ("</script><script>alert(1)</script><!--", "</script><script>alert(1)</script><!--"),
        ("写真 é", "写真 é"),
        ("a\u2028b\u2029c\u202ed\udcffe\x1b[31m", "a\ufffdb\ufffdc\ufffdd\ufffde\ufffd[31m"),
    ],
)
def test_values_come_back(value, found):
    script = call("f", "id", value)
    assert parsed(script) == ["id", found]
    assert b"<" not in script
