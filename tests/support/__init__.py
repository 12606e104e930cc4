"""Helpers of the tests: small models, made runs, a browser, processes that die."""
