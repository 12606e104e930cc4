"""Which words of a prompt name the subject."""

import re

from finetune_monitor.training.config.data import DataConfig

ARTICLES = ("a", "an", "the", "of", "in", "on", "at", "with", "and", "his", "her")
IMAGES = ("photo", "picture", "image", "portrait", "photograph", "style")
CLASSES = ("face", "person", "man", "woman", "boy", "girl", "child", "dog", "cat")


def subject_words(data: DataConfig) -> set[str]:
    """The words of the instance prompt that name the subject: those that neither the class prompt nor people in general
    share. If only a class is left, such as "woman" beside the class prompt "a photo of a person", it is the name."""
    others = " ".join(data.class_prompts)
    special = set(words_of(data.instance_prompt)) - set(words_of(others)) - {*ARTICLES, *IMAGES}
    names = special - set(CLASSES)
    return names if names or not others else special


def words_of(prompt: str) -> list[str]:
    """The words of a prompt, without punctuation, in lower case."""
    return re.findall(r"[^\W_]+", prompt.casefold())
