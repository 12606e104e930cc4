"""Estimates, intervals and correlations: one formula each, its source named."""
