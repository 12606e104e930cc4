"""What is on disk: grid, evaluation, run directory, sweep directory."""
