"""Many training runs on Ray Tune, each with an ordinary run directory."""
