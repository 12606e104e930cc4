"""Do the scores agree with people? Likert labels, grades, buckets (a reconstruction of the article's appendices)."""
