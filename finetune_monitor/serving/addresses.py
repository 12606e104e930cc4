"""Where a page listens, who may open it, and the link to it."""

import os
import re
import secrets
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import read_regular, write_atomic
from finetune_monitor.base.text import printable
from finetune_monitor.serving.access import Access, is_loopback

KEY, PORT = "access.key", "last.port"
"""Files in the folder of what is served."""

LONGEST = 1000
"""Bytes of them; larger ones are not ours."""


def listen(host: str, port: int, where: str) -> socket.socket:
    """A socket that accepts connections.

    Args:
        where: the options that chose host and port, for the message.

    Raises:
        UserError: this machine does not have the address, or the port is in use.
    """
    if not host or ":" in host:
        raise UserError(f"--host: found {host or 'nothing'}, expected an IPv4 address or a name")
    try:
        host.encode("idna")  # as the socket does, but without leaving it open if this fails
        return socket.create_server((host, port))
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        another = "another port or address of this machine" if "--host" in where else "another port"
        raise UserError(f"{printable(f'{where}: {why}')}; choose {another}") from error


def access_to(address: str, host: str, folder: Path, labelers: Sequence[str] = ()) -> Access:
    """Access for this machine only or, if `host` is bound to another address, for everyone with a link and its key.

    Args:
        labelers: those with a link of their own; then no other link opens the page.

    Raises:
        UserError: the folder's key cannot be written or read.
    """
    here = is_loopback(address)
    hosts = ("localhost", "127.0.0.1", address, host.lower()) if here else (address, host.lower())
    key = None if here and not labelers else _key(folder / KEY)
    return Access(None if ip_address(address).is_unspecified else hosts, key, tuple(labelers))


def links_to(address: str, port: int, host: str, access: Access) -> dict[str | None, str]:
    """The links to the page when `host` is bound to an address, each with its key, by labeler; None is for everyone."""
    place = _own_address() if ip_address(address).is_unspecified else host
    page = f"http://{place}:{port}/"
    return {labeler: f"{page}?key={key}" if key else page for key, labeler in access.keys.items()}


def last_port(folder: Path, first: int) -> int:
    """The port that the folder was last served on, or `first`; answers saved in a browser wait for this port.

    Raises:
        UserError: the port was saved but cannot be read.
    """
    file = folder / PORT
    try:
        found = read_regular(file, LONGEST).decode("ascii").strip()
    except FileNotFoundError:
        return first
    except (OSError, UnicodeError) as error:
        raise UserError(f"{file}: cannot read it ({error}); set the port with --port or remove the file") from error
    if not re.fullmatch(r"[0-9]{1,5}", found) or not 0 < int(found) <= 65535:
        raise UserError(f"{file}: found {found[:20]!r}, expected a port; set it with --port or remove the file")
    return int(found)


def remember_port(folder: Path, port: int) -> None:
    """Save the port for `last_port`.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_atomic(folder / PORT, f"{port}\n".encode())
    except OSError as error:
        raise UserError(f"{folder / PORT}: cannot write it ({error.strerror}); the port is saved there") from error


def _own_address() -> str:
    """The address at which other machines most likely reach this one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address reserved for documentation
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _key(file: Path) -> str:
    """The folder's key, created when first needed and readable only by its owner."""
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"{file}: cannot write it ({error.strerror}); the link's key is saved there") from error
    try:
        key = read_regular(file, LONGEST).decode("ascii").strip()
    except OSError as error:
        raise UserError(f"{file}: cannot read it ({error.strerror}); the link's key is saved there") from error
    except UnicodeError:
        key = ""
    if not re.fullmatch(r"[0-9A-Za-z_-]{16,}", key):
        raise UserError(f"{file}: damaged; remove it, which changes the link")
    return key
