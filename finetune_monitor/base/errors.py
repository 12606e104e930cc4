"""The error that is written for the user: where, what is wrong, and what to do."""

EXAMPLES_NAMED = 3
"""How many examples a message gives when there may be many."""


class UserError(Exception):
    """A problem that the user can fix, such as a file, a key, or a folder. Shown without a traceback; exit status 2."""


def all_problems(problems: list[str], heading: str) -> None:
    """Raise one `UserError` that lists every problem; do nothing if there are none."""
    if problems:
        raise UserError("\n".join([heading, *(f"  - {problem}" for problem in problems)]))
