"""What a machine lacks is counted in the summary, and a browser that must be there is not passed over."""

from types import SimpleNamespace

import pytest

from support.browser import REQUIRED, started_chromium
from support.skips import skipped


def test_each_reason_is_a_line_with_its_count():
    reasons = ["needs A: install A", "needs B", "needs A: install A"]
    reports = [SimpleNamespace(longrepr=("tests/test_x.py", 1, f"Skipped: {reason}")) for reason in reasons]
    assert skipped(reports) == ["2 skipped: needs A: install A", "1 skipped: needs B"]


@pytest.mark.parametrize(("required", "outcome"), [("", pytest.skip.Exception), ("1", pytest.fail.Exception)])
def test_a_browser_that_is_missing_is_a_failure_where_it_is_required(monkeypatch, tmp_path, required, outcome):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv(REQUIRED, required)
    with pytest.raises(outcome, match="apt install chromium"), started_chromium():
        pass
