"""Files, images, errors, processes, config sections; knows nothing of the product."""
