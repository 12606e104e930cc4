"""Load models without the progress bars and hints of the libraries."""


def hide_loading() -> None:
    """Hide the progress bars of loading, and its hints about components without LoRA layers."""
    import diffusers.utils.logging
    import transformers.utils.logging

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()
