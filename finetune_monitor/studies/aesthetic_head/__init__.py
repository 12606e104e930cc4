"""Fit an aesthetic head on human ratings, evaluate it, score images with it."""
