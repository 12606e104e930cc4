"""Text for people: the names of scores in plain words."""

import re

import pytest

from finetune_monitor.base.text import ACRONYMS, spoken
from support.places import ROOT


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("face_similarity", "face similarity"),
        ("clip_score", "CLIP score"),
        ("subject_similarity_dino", "subject similarity DINO"),
        ("eclipse", "eclipse"),
    ],
)
def test_the_name_of_a_score_in_plain_words(name, words):
    assert spoken(name) == words


def test_the_page_writes_the_same_words_in_capitals():
    script = (ROOT / "finetune_monitor/report/page/words.js").read_text()
    assert re.search(r"ACRONYMS = /(.*)/g;", script)[1] == ACRONYMS.pattern
