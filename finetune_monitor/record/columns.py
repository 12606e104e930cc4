"""The columns that metrics write beside their own name; known here without loading a metric."""

STARS = "_stars"
"""What the name of a score's stars, 1 to 5, ends with."""

HELD_OUT = "face_similarity_held_out"
"""Likeness to photos of the person that the model was not trained on; measured where some are held out."""

SIDE_COLUMNS = {"face_similarity": ["faces_found", "face_similarity_zero_filled"], "aesthetic": []}
"""By metric; a stopping rule may watch them too."""
