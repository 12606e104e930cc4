"""Do the scores agree with people? Labels, grades and stars, after the article's appendices."""
