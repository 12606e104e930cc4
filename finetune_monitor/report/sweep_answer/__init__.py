"""What a sweep has found: scores against the axis and over the steps, with intervals and a verdict in words."""
