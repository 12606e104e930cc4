"""Pages that this machine serves: who may open them, and where they listen."""
