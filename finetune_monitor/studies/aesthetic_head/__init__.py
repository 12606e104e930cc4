"""Fit an aesthetic head on human ratings, measure it, and score images with it."""
