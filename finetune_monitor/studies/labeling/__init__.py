"""Ask people: draw the images, show them one at a time, keep every rating."""
