"""The error that is written for the user: where, what is wrong, and what to do."""

import errno

EXAMPLES_NAMED = 3
"""How many examples a message gives when there may be many."""

OF_THE_DISK = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO, errno.ESTALE})
"""Errors that come from the disk and not from the program: full, over a quota, read-only, damaged, gone."""

LONGEST_LINE, PROBLEMS_NAMED = 2000, 100
"""Limits on what a message quotes: characters of a line, and problems of a list."""


class UserError(Exception):
    """A problem that the user can fix, such as a file, a key, or a folder. Shown without a traceback; exit status 2.

    What it quotes may be of any length: the middle of a long line is left out.
    """

    def __init__(self, message: str = "") -> None:
        super().__init__("\n".join(map(_fit, message.split("\n"))))


def disk_problem(error: OSError) -> str | None:
    """The message for an error of the disk, such as a full one; None for any other error."""
    if error.errno not in OF_THE_DISK:
        return None
    place = f"{error.filename}: " if error.filename else ""
    remedy = "free some space or repair the disk, and run the same command again"
    return f"{place}cannot be written ({error.strerror}); {remedy}"


def _fit(line: str) -> str:
    half = LONGEST_LINE // 2
    return line if len(line) <= LONGEST_LINE else f"{line[:half]} … {line[-half:]}"


def all_problems(problems: list[str], heading: str) -> None:
    """Raise one `UserError` that lists every problem; do nothing if there are none."""
    if problems:
        named, more = problems[:PROBLEMS_NAMED], len(problems) - PROBLEMS_NAMED
        lines = [f"  - {problem}" for problem in named] + [f"  - and {more:,} more"] * (more > 0)
        raise UserError("\n".join([heading, *lines]))
