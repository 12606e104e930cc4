"""Files, errors, images, processes: knows nothing of the product."""
