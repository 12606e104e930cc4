"""What a sweep has found: scores against the axis and over the steps, with a verdict in words."""
