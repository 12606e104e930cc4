"""Views of recorded runs: the page, comparisons, the results of a sweep."""
