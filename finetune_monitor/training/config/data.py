"""The config's `data`: photos and prompts."""

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.sections import Section
from finetune_monitor.training.config.kinds import UserPath
from finetune_monitor.training.photo_folder import list_photos

AUTO, HELD_OUT, ENOUGH_PHOTOS = "auto", 2, 8
"""How many photos `auto` holds out, and from how many photos on; with fewer, none can be spared."""


def _held_out(found: Any, info: Any) -> Any:
    """A number, a folder, or none; `auto` becomes the number that the folder of photos allows."""
    if found == AUTO:
        return _spared(info.data.get("instance_images"), info.data.get("instance_count"))
    is_count = isinstance(found, int) and not isinstance(found, bool) and found > 0
    if found is None or is_count or isinstance(found, Path) or (isinstance(found, str) and found):
        return found
    raise ValueError(
        f"found {found!r}, expected a number of photos (1 or more), a folder with other photos, auto, or null"
    )


def _spared(folder: Path | None, used: int | None) -> int | None:
    """How many photos are held out by default: two if there are at least eight."""
    try:
        found = len(list_photos(folder)) if folder is not None else 0
    except (UserError, OSError):
        return None  # reported when the photos are read
    return HELD_OUT if found >= ENOUGH_PHOTOS and found - HELD_OUT >= (used or 1) else None


HeldOut = Annotated[int | UserPath | None, BeforeValidator(_held_out)]


def _class_prompt(found: Any) -> Any:
    """A prompt, several, or none: one message for what is none of these."""
    is_list = isinstance(found, (list, tuple)) and len(found) > 0 and all(isinstance(each, str) for each in found)
    if found is None or isinstance(found, str) or is_list:
        return found
    raise ValueError(f"found {found!r}, expected a prompt, a list of prompts, or null")


ClassPrompt = Annotated[str | Annotated[tuple[str, ...], Field(min_length=1)] | None, BeforeValidator(_class_prompt)]


class DataConfig(Section):
    instance_images: UserPath = Field(
        description="Folder with the photos of the subject; 5 to 20 are usual. Or a folder with kohya's folders of "
        "photos (10_sks person), whose names give repeats and a prompt.",
        examples=["photos/ana"],
    )
    instance_count: int | None = Field(
        None, ge=1, description="Train on only this many photos, the first ones in the folder; null: all."
    )
    held_out: HeldOut = Field(
        AUTO,
        validate_default=True,
        description="Photos held out of training: a number of photos at the end of the folder, or a folder with other "
        "photos. auto: two if there are eight or more. null: none.",
    )
    instance_prompt: str = Field(
        min_length=1,
        description="Training prompt of every photo without a caption; it contains a rare token that names the "
        "subject.",
        examples=["a photo of sks person"],
    )
    captions: bool = Field(
        True,
        description="Train each photo with its own caption, if it has one: text beside it (01.txt), or a line in "
        "metadata.jsonl. false: use instance_prompt for all, and each photo once.",
    )
    class_images: UserPath | None = Field(
        None,
        description="Folder with images of the class, for prior preservation; the base model generates missing ones. "
        "Required if train.prior_loss_weight is above 0.",
        examples=["photos/person"],
    )
    class_prompt: ClassPrompt = Field(
        None,
        description="Prompt of the class images: the instance prompt without the rare token. Or a list of prompts that "
        "take turns, so that the model keeps their styles, too; the first one is for images without a caption.",
        examples=["a photo of a person"],
    )
    class_count: int = Field(200, ge=1, description="How many class images to use.")
    resolution: int = Field(
        512,
        ge=64,
        multiple_of=8,
        description="Width and height of the training crops and of the generated images, in pixels.",
    )
    crop: Literal["face", "center"] = Field(
        "face",
        description="face: the center square of each photo, or a square around the face if it would be cut off or too "
        "small. center: always the center square.",
    )
    random_crop: bool = Field(False, description="Train on eight random crops per photo, within its square.")
    random_flip: bool = Field(False, description="Train on mirrored photos, too.")
    workers: int = Field(
        2, ge=0, description="Processes that load photos in advance if the latents do not fit in the cache."
    )

    @property
    def class_prompts(self) -> tuple[str, ...]:
        """The prompts of the class images; empty without one."""
        if self.class_prompt is None:
            return ()
        return (self.class_prompt,) if isinstance(self.class_prompt, str) else self.class_prompt

    @model_validator(mode="after")
    def _several_class_prompts_are_captions(self) -> "DataConfig":
        if len(self.class_prompts) > 1 and not self.captions:
            raise ValueError(
                f"class_prompt: found {len(self.class_prompts)} prompts, which are kept as captions beside the class "
                "images, but captions is false; set it to true, or keep one prompt"
            )
        return self
