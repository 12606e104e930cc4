"""What a plan and its page are made with where nothing else is chosen."""

PER_PERSON, REPEATS = 128, 0.05
"""Images of a person, for both questions together; share of the images that are shown twice."""

SEED = 0
"""Of the choice of images, and of every labeler's order."""

FIRST_PORT = 8760
"""Where a plan is served first; later on the port that it had last."""
