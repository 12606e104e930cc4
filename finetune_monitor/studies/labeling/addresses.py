"""Where the labeling page listens, who may open it there, and the link to it."""

import os
import re
import secrets
import socket
from ipaddress import ip_address
from pathlib import Path

from finetune_monitor.base.errors import UserError
from finetune_monitor.base.files import write_atomic
from finetune_monitor.base.text import printable
from finetune_monitor.studies.labeling.serving import Access, is_loopback
from finetune_monitor.studies.labeling.settings import FIRST_PORT

KEY, PORT = "access.key", "last.port"
"""Files in a plan's folder."""


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections.

    Raises:
        UserError: this machine has no such address, or the port is taken.
    """
    if not host or ":" in host:
        raise UserError(f"--host: found {host or 'nothing'}, expected an IPv4 address or a name")
    try:
        host.encode("idna")  # as the socket would, but without leaving it open where this fails
        return socket.create_server((host, port))
    except (OSError, UnicodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        where = printable(f"--host {host} --port {port}: {why}")
        raise UserError(f"{where}; choose another port or address of this machine") from error


def access_to(address: str, host: str, folder: Path) -> Access:
    """This machine alone; or whoever has the link with the key, where `host` is bound to another address.

    Raises:
        UserError: the folder's key cannot be kept or read.
    """
    if is_loopback(address):
        return Access(("localhost", "127.0.0.1", address, host.lower()))
    return Access(None if ip_address(address).is_unspecified else (address, host.lower()), _key(folder / KEY))


def link_to(address: str, port: int, host: str, access: Access) -> str:
    """What to open where `host` is bound to an address; it carries the key where there is one."""
    place = _own_address() if ip_address(address).is_unspecified else host
    return f"http://{place}:{port}/" + (f"?key={access.key}" if access.key else "")


def last_port(folder: Path) -> int:
    """The port that the folder was served on last: answers that wait in a browser wait for this one.

    Raises:
        UserError: it is written down, and cannot be read.
    """
    file = folder / PORT
    try:
        found = file.read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return FIRST_PORT
    except (OSError, UnicodeError) as error:
        raise UserError(f"{file}: cannot be read ({error}); name the port with --port, or remove the file") from error
    if not re.fullmatch(r"[0-9]{1,5}", found) or not 0 < int(found) <= 65535:
        raise UserError(f"{file}: found {found[:20]!r}, expected a port; name it with --port, or remove the file")
    return int(found)


def remember_port(folder: Path, port: int) -> None:
    """Write down what `last_port` reads.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        write_atomic(folder / PORT, f"{port}\n".encode())
    except OSError as error:
        raise UserError(f"{folder / PORT}: cannot be written ({error.strerror}); the port is kept there") from error


def _own_address() -> str:
    """The address under which other machines most likely reach this one; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address that is nobody's
            return str(probe.getsockname()[0])
        except OSError:
            return socket.gethostname()


def _key(file: Path) -> str:
    """The folder's key, made when it is first needed, for its owner's eyes only."""
    try:
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as new:
            new.write(secrets.token_urlsafe(24))
    except FileExistsError:
        pass
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error.strerror}); the link's key is kept there") from error
    try:
        key = file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror}); the link's key is kept there") from error
    except UnicodeError:
        key = ""
    if not re.fullmatch(r"[0-9A-Za-z_-]{16,}", key):
        raise UserError(f"{file}: damaged; remove it, and the link changes")
    return key
