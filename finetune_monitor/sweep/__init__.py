"""Many trainings on Ray Tune, each an ordinary run directory."""
