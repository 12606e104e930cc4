"""Shared fixtures; shapes in signatures are checked while the tests run."""

from jaxtyping import install_import_hook

install_import_hook("finetune_monitor", "beartype.beartype")
