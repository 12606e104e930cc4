"""The default settings of a plan and its page."""

PER_PERSON, REPEATS = 128, 0.05
"""Images per person, for both questions together; share of the images that are shown twice."""

SEED = 0
"""The seed of the choice of images and of every labeler's order."""

LONGEST_NAME = 60
"""Characters of a labeler's name."""

FIRST_PORT = 8760
"""The port on which a plan is first served; later, its last port is used."""
