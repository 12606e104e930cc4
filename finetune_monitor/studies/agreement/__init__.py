"""Do the scores agree with people? Labels, grades, and stars."""
