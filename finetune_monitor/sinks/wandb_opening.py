"""How a W&B run is opened: in which mode, with which login, and with which arguments of `wandb.init`."""

import logging
import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.extras import require
from finetune_monitor.base.files import read_regular
from finetune_monitor.base.redaction import redacted, without_secrets

logger = logging.getLogger(__name__)

Mode = Literal["online", "offline", "disabled"]

DEFAULT_MODE: Mode = "offline"

LOGINS = ("WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE")
"""The variables with which the environment logs in."""

FOLDER = "wandb"
"""The folder in the run directory."""

RUN_ID_FILE = Path(FOLDER) / "run-id"
"""The file in the run directory with W&B's id, so that resuming continues the same W&B run."""

HOST = "api.wandb.ai"
"""The host of W&B's own service, also where wandb calls it by another name."""

MODES: tuple[Mode, ...] = ("online", "offline", "disabled")
"""From the most public to the most private."""

NAMES: Mapping[str, Mode] = {**{mode: mode for mode in MODES}, "dryrun": "offline", "run": "online"}
"""The values of WANDB_MODE, with former names."""

NOT_DISABLED = ("", "0", "f", "false", "n", "no", "off")

DATA, STAGED = "WANDB_DATA_DIR", "data"
"""The variable that names wandb's folder for files that wait to be sent, and that folder beside the runs."""

PROJECT = "finetune-monitor"

STEP = "training_step"
"""The x-axis of every curve; wandb's own step only increases and would drop steps repeated after resuming."""

VARIABLES = {
    "project": "WANDB_PROJECT",
    "name": "WANDB_NAME",
    "dir": "WANDB_DIR",
    "id": "WANDB_RUN_ID",
    "resume": "WANDB_RESUME",
}
"""The variables with which the environment sets what is our choice otherwise."""


def init_arguments(output_dir: Path, options: Mapping[str, Any], resume_step: int | None) -> dict[str, Any]:
    """The arguments of `wandb.init` for this run directory: the same run id when resuming, and nothing personal.

    Args:
        options: those of the sink, without `images`; for None, the environment or wandb chooses.
    """
    mode = _most_private(options.get("mode", DEFAULT_MODE))
    name = without_secrets(output_dir.resolve().name)
    ours = {"project": PROJECT, "name": name, "dir": str(output_dir), **_resumed(output_dir, mode, resume_step)}
    ours = {key: value for key, value in ours.items() if VARIABLES[key] not in os.environ}
    given = redacted({key: value for key, value in options.items() if value is not None})
    return {**ours, **given, "mode": mode, "settings": _settings(mode)}


def _resumed(output_dir: Path, mode: Mode, resume_step: int | None) -> dict[str, str]:
    """What makes a resumed run go on with its W&B run."""
    stored = output_dir / RUN_ID_FILE
    if resume_step is None or not stored.exists():
        return {}
    allowed = {"resume": "allow"} if mode == "online" else {}  # offline, `wandb sync` merges files with the same id
    return {"id": read_regular(stored).decode().strip(), **allowed}


def import_wandb() -> Any:
    """The wandb module.

    Raises:
        UserError: it is not installed.
    """
    return require("wandb", "sink wandb", otherwise="remove the sink from the config")


def check_login(mode: str) -> None:
    """Check that wandb finds a login if something is to be sent; the network is not asked whether it is valid.

    Raises:
        UserError: it finds none, or the mode is unknown.
    """
    wandb = import_wandb()
    known = next((each for each in MODES if each == mode), None)
    if known is None:
        raise UserError(f"sink wandb: found mode {mode!r}, expected one of {', '.join(MODES)}")
    if _in_force(known) != "online":
        return
    settings = wandb.setup().settings
    if not (settings.api_key or any(map(os.environ.get, LOGINS)) or _is_in_netrc(settings.base_url)):
        raise UserError(
            f"sink wandb: mode is online, but found no login for {settings.base_url}; run `wandb login`, set "
            "WANDB_API_KEY, or set monitor.sinks.wandb.mode=offline and run `wandb sync` later"
        )


def _most_private(mode: Mode) -> Mode:
    """The more private of two modes: the environment alone must not make images of faces leave the machine.

    wandb ignores WANDB_DISABLED, and fails if it does not know a WANDB_MODE; here both mean something more private.
    """
    wanted, found = _wanted(mode), _in_force(mode)
    given = os.environ.get("WANDB_MODE", "").strip().lower()
    if given and given not in NAMES and wanted != "disabled":
        logger.warning("sink wandb: found WANDB_MODE=%s, expected one of %s; nothing is sent", given, ", ".join(MODES))
    if wanted == "online" != found:
        logger.warning("sink wandb: WANDB_MODE is online, but mode is %s; nothing is sent", mode)
    if os.environ.get("WANDB_MODE"):
        os.environ["WANDB_MODE"] = found
    return found


def _in_force(mode: Mode) -> Mode:
    """The more private of a mode and the one that the environment asks for."""
    return MODES[max(MODES.index(mode), MODES.index(_wanted(mode)))]


def _wanted(mode: Mode) -> Mode:
    """The mode that the environment asks for; offline if it is not known."""
    if os.environ.get("WANDB_DISABLED", "").strip().lower() not in NOT_DISABLED:
        return "disabled"
    given = os.environ.get("WANDB_MODE", "").strip().lower()
    return NAMES.get(given, "offline") if given else mode


def _is_in_netrc(address: str) -> bool:
    """Whether the file of logins in the home folder, where `wandb login` writes, has one for an address."""
    named = os.environ.get("NETRC")
    for path in [named] if named else ["~/.netrc", "~/_netrc"]:
        try:
            found = netrc.netrc(os.path.expanduser(path))
        except (OSError, netrc.NetrcParseError):
            continue
        if any(map(found.authenticators, (urlsplit(address).netloc, HOST))):
            return True
    return False


@contextmanager
def staging_inside(output_dir: Path) -> Iterator[None]:
    """Let wandb stage the images of tables in the run directory; otherwise they stay in the home folder."""
    if DATA in os.environ:
        yield
        return
    os.environ[DATA] = str(output_dir / FOLDER / STAGED)
    try:
        yield
    finally:
        del os.environ[DATA]


def _settings(mode: Mode) -> dict[str, Any]:
    """Settings for little console output, and metadata without command line, user name, host name, or git remote."""
    quiet = {"console": "off", "quiet": True, "silent": mode != "online"}
    return {
        **{key: value for key, value in quiet.items() if f"WANDB_{key.upper()}" not in os.environ},
        "x_disable_meta": True,
    }
