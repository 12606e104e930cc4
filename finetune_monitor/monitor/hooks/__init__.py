"""Hooks that pass events on: to a command, or to an address."""
