"""Push the weights of a step with their model card to the Hugging Face Hub; nothing else sends anything there."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.text import encoded, first_line
from finetune_monitor.record.history import RunHistory, read_run
from finetune_monitor.record.kept_weights import BEST, CARD, SAMPLES, KeptWeights, step_of
from finetune_monitor.sinks.model_card import REPOSITORY, front_matter, make_card

PLACES = ("_name_or_path", "name_or_path")
"""Keys in the settings of pipelines and networks that name the folder that they were loaded from."""

Files = dict[str, Path | bytes]
"""What a repository gets, by path: a file, or the content of one."""


@dataclass(frozen=True)
class Pushed:
    """What was pushed, and where to."""

    address: str
    has_license: bool


def push(run_dir: Path, weights: KeptWeights, repository: str, private: bool = True) -> Pushed:
    """Push the weights of a step to a repository, which is created if it does not exist.

    Honors `HF_TOKEN`, `HF_ENDPOINT`, and the token of `hf auth login`.

    Args:
        repository: `owner/name`.
        private: whether only its owner can see it; a repository that exists must already be so.

    Raises:
        UserError: the name is not valid, there is no token, the repository is not as private as asked, or the hub
            refuses or cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, constants, get_token

    _check_name(repository)
    token = get_token()
    if not token:
        raise UserError(f"{repository}: found no token for {constants.ENDPOINT}; set HF_TOKEN or run `hf auth login`")
    files = repository_files(read_run(run_dir), weights, repository)
    front = _front_matter(files, run_dir)
    operations = [CommitOperationAdd(name, content) for name, content in files.items()]
    api = HfApi(endpoint=constants.ENDPOINT, token=token)
    message = f"finetune_monitor: step {weights.step}"
    _asked(repository, lambda: _create(api, repository, private))
    _asked(repository, lambda: api.create_commit(repository, operations, commit_message=message))
    return Pushed(f"{constants.ENDPOINT}/{repository}", "license" in front)


def repository_files(history: RunHistory, weights: KeptWeights, repository: str) -> Files:
    """The weights, and their card with its samples.

    The card in `best/` is used as it is, because somebody may have edited it.
    """
    return {**dict(_weight_files(weights)), **_card_files(history, weights, repository)}


def _weight_files(weights: KeptWeights) -> Iterator[tuple[str, Path | bytes]]:
    for file in sorted(weights.folder.rglob("*")):
        name = file.relative_to(weights.folder).as_posix()
        if file.is_file() and name != CARD and not name.startswith(f"{SAMPLES}/"):
            yield name, _without_places(file) if file.suffix == ".json" else file


def _without_places(file: Path) -> bytes:
    """A JSON file without the folder that something was loaded from."""
    try:
        content = json.loads(file.read_bytes())
    except ValueError as error:
        raise UserError(f"{file}: damaged ({error}), so it may name private folders; restore or delete it") from error
    if isinstance(content, dict) and any(key in content for key in PLACES):
        content = {key: value for key, value in content.items() if key not in PLACES}
        return json.dumps(content, indent=2, ensure_ascii=False).encode()
    return file.read_bytes()


def _card_files(history: RunHistory, weights: KeptWeights, repository: str) -> Files:
    best = history.output_dir / BEST
    samples: Mapping[str, Path]
    if step_of(best) == weights.step and (best / CARD).is_file():
        text = (best / CARD).read_text()
        samples = {file.name: file for file in sorted((best / SAMPLES).glob("*"))}
    else:
        card = make_card(history, weights)
        text, samples = card.text, card.samples
    found = encoded(text.replace(REPOSITORY, repository))
    return {CARD: found, **{f"{SAMPLES}/{name}": file for name, file in samples.items()}}


def _front_matter(files: Files, run_dir: Path) -> Mapping[str, Any]:
    card = files[CARD]
    assert isinstance(card, bytes)
    try:
        return front_matter(card)
    except ValueError as error:
        problem = first_line(str(error))
        raise UserError(f"{run_dir / BEST / CARD}: the front matter is damaged ({problem}); repair it") from error


def _check_name(repository: str) -> None:
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    problem = "" if repository.count("/") == 1 else "one slash"
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        problem = first_line(str(error))
    if problem:
        raise UserError(f"--repo: found {repository!r}, expected a name on the hub like owner/name ({problem})")


def _create(api: Any, repository: str, private: bool) -> None:
    """Create the repository, or check that the existing one is as private as asked."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        found = bool(api.repo_info(repository).private)
    except RepositoryNotFoundError:
        api.create_repo(repository, private=private)
        return
    if found != private:
        is_now, asked = ("private", "public (--public)") if found else ("public", "private (the default)")
        raise UserError(
            f"{repository}: exists and is {is_now}, expected {asked}; nothing was sent; change its settings on the "
            "hub, the option, or the name"
        )


def _asked(repository: str, action: Callable[[], object]) -> None:
    """Ask the hub for something; whatever fails becomes a message."""
    from huggingface_hub import constants
    from huggingface_hub.errors import HfHubHTTPError

    network: Any = HfHubHTTPError.__bases__[0]  # of the network library, which depends on the version
    try:
        action()
    except (HfHubHTTPError, ValueError, RuntimeError) as error:  # of a request, of the card's fields, of one file
        cause = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ else error
        said = first_line(getattr(cause, "server_message", None) or str(cause))
        raise UserError(
            f"{repository}: {constants.ENDPOINT} refused ({said}); check the name and what the token may do"
        ) from error
    except (OSError, network) as error:
        said = first_line(str(error) or repr(error))
        raise UserError(
            f"{repository}: cannot reach {constants.ENDPOINT} ({said}); run the same command with network access"
        ) from error
