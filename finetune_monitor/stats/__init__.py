"""Estimates, intervals, and correlations: one formula each, with its source."""
