"""Views of recorded runs: the page, comparisons, the answer of a sweep."""
