"""Files, images, errors, processes, config sections; independent of the product."""
