"""The monitor as a callback of other libraries' training loops."""
