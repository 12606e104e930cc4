"""The callback: when to evaluate, what is measured, when to stop."""
