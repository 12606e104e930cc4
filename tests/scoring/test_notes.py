"""What is printed while files are scored: each metric that is missing is named once."""

from types import SimpleNamespace

from finetune_monitor.scoring.notes import say_metrics


def test_a_missing_metric_is_named_once(capsys):
    why = "subject_similarity: not all networks are available:\n  - clip: weights missing"
    say_metrics(SimpleNamespace(metrics=[], missing={"subject_similarity": why}))
    missing = "missing:  subject_similarity: not all networks are available:\n            - clip: weights missing\n"
    assert capsys.readouterr().out.endswith(missing)
