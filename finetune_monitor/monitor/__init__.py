"""The callback: when to evaluate, what to measure, when to stop."""
