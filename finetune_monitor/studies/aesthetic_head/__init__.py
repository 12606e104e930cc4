"""Fit, measure and read aesthetic heads: what turns a CLIP embedding into the rating that people would give."""
