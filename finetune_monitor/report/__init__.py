"""Pages from run directories: curves with the images behind every point, runs side by side."""
