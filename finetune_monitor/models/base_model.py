"""A base model with everything that a config may say of it: where it is, its VAE, and words that were added to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.paths import user_path
from finetune_monitor.base.text import first_line
from finetune_monitor.models.diffusers_hub import resolve_hub_model, resolve_hub_vae, variant_of, variant_of_network
from finetune_monitor.models.families import FAMILIES, WANTED, Family
from finetune_monitor.models.single_file import (
    check_complete,
    check_single_file,
    copy_from_disk,
    family_in,
    fits,
    is_single_file,
    load_single_file,
    read_pickle,
    read_shapes,
    readable,
)

VAE_MARKS = ("encoder.conv_in.weight", "first_stage_model.encoder.conv_in.weight")

EMBEDDING_KEYS = ("emb_params", "string_to_param")

OTHERS = {
    "StableDiffusionXLImg2ImgPipeline": "the refiner of SDXL, or an image-to-image model",
    "StableDiffusionXLInpaintPipeline": "an inpainting model of SDXL",
    "StableDiffusionInpaintPipeline": "an inpainting model",
}
"""What other pipelines are, by their class in diffusers."""


@dataclass(frozen=True)
class BaseModel:
    """A base model of Stable Diffusion 1.x, 2.x, or SDXL.

    name: a hub id, a folder in diffusers layout, or a file.
    revision: of the hub id.
    variant: of the weights' files, such as fp16; None for the plain ones, or fp16 if there are only those.
    vae: another VAE: a hub id, a folder, or a file.
    embeddings: files with textual-inversion embeddings; the word for each is its name without the suffix.
    layout: the settings for a file.
    """

    name: str
    revision: str | None = None
    variant: str | None = None
    vae: str | None = None
    embeddings: tuple[Path, ...] = ()
    layout: str | None = None

    def find(self) -> str | Path:
        """The file, the folder, or the hub id, after checking that it can be loaded.

        Raises:
            UserError: it is missing, incomplete, or another kind of model.
        """
        if is_single_file(self.name):
            file = user_path(self.name)
            check_single_file(file, self.layout)
            return file
        if self.layout is not None:
            raise UserError(f"layout: found {self.layout!r}, but {self.name} is no file; leave layout out")
        return resolve_hub_model(self.name, self.revision, self.variant)

    def find_parts(self) -> list[str]:
        """What is wrong with the VAE and the embeddings."""
        problems = []
        parts: list[Callable[[], object]] = [
            self._find_vae,
            *(partial(read_embedding, path) for path in self.embeddings),
        ]
        for find in parts:
            try:
                find()
            except UserError as error:
                problems.append(str(error))
        return problems

    def family(self, found: str | Path) -> Family:
        """The family that the model belongs to.

        Args:
            found: the result of `find`.

        Raises:
            UserError: it belongs to none, lacks a text encoder, or cannot take the embeddings.
        """
        if isinstance(found, Path) and found.is_file():
            family = family_in(read_shapes(found))
        else:
            index = self._index(found)
            family = self._family_of_class(str(index.get("_class_name")))
            if lacking := [name for name in family.text_encoders if not (index.get(name) or [None])[-1]]:
                raise UserError(
                    f"{self.name}: found {family.name} without {' and '.join(lacking)}, as in the refiner of SDXL; "
                    f"expected {WANTED}"
                )
        if self.embeddings and len(family.text_encoders) > 1:
            raise UserError(
                f"embeddings: found {self.embeddings[0]}, but {family.name} has {len(family.text_encoders)} text "
                "encoders, for which embeddings cannot be loaded; leave embeddings out"
            )
        return family

    def _index(self, found: str | Path) -> dict[str, Any]:
        from diffusers import DiffusionPipeline

        with self._loadable():
            index: dict[str, Any] = DiffusionPipeline.load_config(str(found), revision=self.revision)
            return index

    def _family_of_class(self, kind: str) -> Family:
        known = {family.pipeline: family for family in FAMILIES}
        if kind not in known:
            expected = " or ".join(f"a {family.pipeline} ({family.name})" for family in FAMILIES)
            what = f"a {kind}" + (f" ({OTHERS[kind]})" if kind in OTHERS else "")
            raise UserError(f"{self.name}: found {what}, expected {expected}")
        return known[kind]

    def open(self, found: str | Path) -> Any:
        """The pipeline.

        Args:
            found: the result of `find`.

        Raises:
            UserError: its parts do not fit each other, or it belongs to no family.
        """
        pipeline = self._open(found)
        if self.vae is not None:
            pipeline.register_modules(vae=self._fitting_vae(pipeline))
        for path in self.embeddings:
            _add_embedding(pipeline, path)
        return pipeline

    def _open(self, found: str | Path) -> Any:
        import diffusers

        family = self.family(found)
        if isinstance(found, Path) and found.is_file():
            return load_single_file(found, check_single_file(found, self.layout))
        variant = self.variant or (variant_of(found) if isinstance(found, Path) else None)
        with self._loadable():
            return getattr(diffusers, family.pipeline).from_pretrained(
                found, revision=self.revision, variant=variant, use_safetensors=True, **family.left_out
            )

    @contextmanager
    def _loadable(self) -> Iterator[None]:
        """Name a folder or a hub id that cannot be loaded."""
        try:
            yield
        except (OSError, ValueError) as error:
            raise UserError(
                f"{self.name}: cannot be loaded ({first_line(str(error))}); check the name, revision, and variant, or "
                "restore its folder"
            ) from error

    def _find_vae(self) -> str | Path | None:
        if self.vae is None:
            return None
        if not is_single_file(self.vae):
            return resolve_hub_vae(self.vae)
        file = user_path(self.vae)
        if not any(mark in read_shapes(file) for mark in VAE_MARKS):
            raise UserError(f"vae: {file}: found other weights, expected a VAE of Stable Diffusion")
        return file

    def _fitting_vae(self, pipeline: Any) -> Any:
        vae, own = self._load_vae(pipeline), pipeline.vae.config
        for key in ("latent_channels", "scaling_factor"):
            if vae.config[key] != own[key]:
                raise UserError(
                    f"vae: {self.vae}: its {key} is {vae.config[key]}, expected {own[key]} as in {self.name}; use a "
                    "VAE of the same version"
                )
        if len(vae.config.block_out_channels) != len(own.block_out_channels):
            raise UserError(f"vae: {self.vae}: scales images differently from that of {self.name}; use another one")
        return vae

    def _load_vae(self, pipeline: Any) -> Any:
        from diffusers import AutoencoderKL

        found = self._find_vae()
        if isinstance(found, Path) and found.is_file():
            with fits(found, self.name), TemporaryDirectory() as folder:
                pipeline.vae.save_config(folder)
                vae = AutoencoderKL.from_single_file(
                    str(found), config=folder, local_files_only=True, torch_dtype=torch.float32
                )
                check_complete({"VAE": vae})
            copy_from_disk(vae)
        else:
            variant = variant_of_network(found) if isinstance(found, Path) else None
            vae = AutoencoderKL.from_pretrained(found, variant=variant, use_safetensors=True)
        return vae


def read_embedding(file: Path) -> torch.Tensor:
    """A textual-inversion embedding: one row for each token.

    Raises:
        UserError: the file is missing, damaged, holds code, or is none for Stable Diffusion 1.x or 2.x.
    """
    path = user_path(file)
    if not path.is_file():
        raise UserError(f"embeddings: {path}: no such file")
    with readable(path):
        found = _embedding_in(path)
    if found is None or found.ndim not in (1, 2) or not found.is_floating_point():
        raise UserError(f"embeddings: {path}: found other content, expected a textual-inversion embedding")
    rows: torch.Tensor = found.reshape(-1, found.shape[-1]).float()
    return rows


def _embedding_in(path: Path) -> Any:
    from safetensors.torch import load_file

    content = load_file(path) if path.suffix.lower() == ".safetensors" else read_pickle(path)
    known = [content[key] for key in EMBEDDING_KEYS if key in content]
    value = known[0] if known else next(iter(content.values()), None) if len(content) == 1 else None
    if isinstance(value, dict):
        value = next(iter(value.values()), None)
    return value.data if isinstance(value, torch.Tensor) else None


def _add_embedding(pipeline: Any, path: Path) -> None:
    rows, width = read_embedding(path), pipeline.text_encoder.config.hidden_size
    if rows.shape[-1] != width:
        raise UserError(
            f"embeddings: {path}: has {rows.shape[-1]} numbers per token, expected {width} as in the text encoder"
        )
    try:
        pipeline.load_textual_inversion({path.stem: rows})
    except ValueError as error:
        raise UserError(f"embeddings: {path}: {first_line(str(error))}; rename the file") from error
