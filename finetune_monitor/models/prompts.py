"""How much of a prompt a model reads: CLIP's text encoders have 77 positions and drop the rest."""

from collections.abc import Iterable, Iterator
from typing import Any

from finetune_monitor.models.pipeline import Pipeline


def cut_prompts(pipeline: Pipeline, prompts: Iterable[str]) -> Iterator[str]:
    """A warning for each prompt of which the model reads only a part, with the part that it drops."""
    if tokenizer := _shortest(pipeline):
        for prompt in dict.fromkeys(prompts):
            if dropped := _dropped(tokenizer, prompt):
                yield (
                    f"prompt {prompt!r}: the text encoder reads {tokenizer.model_max_length - 2} tokens and drops "
                    f"{dropped!r}; shorten the prompt"
                )


def _shortest(pipeline: Pipeline) -> Any:
    """The tokenizer that reads the least of a prompt; None if a text encoder without such a limit reads it, too."""
    parts = pipeline.components
    names = [name for name, part in parts.items() if name.startswith("text_encoder") and part is not None]
    if not all(hasattr(parts[name].config, "max_position_embeddings") for name in names):
        return None
    found = [parts.get(name.replace("text_encoder", "tokenizer")) for name in names]
    return min((each for each in found if each is not None), key=lambda each: each.model_max_length, default=None)


def _dropped(tokenizer: Any, prompt: str) -> str:
    ids = tokenizer(prompt, truncation=False, verbose=False).input_ids
    dropped = ids[tokenizer.model_max_length - 1 : -1]  # the last token, which marks the end, is kept
    return str(tokenizer.decode(dropped)).strip()
