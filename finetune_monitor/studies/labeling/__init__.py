"""Ask people: choose the images, show them one at a time, keep every rating."""
