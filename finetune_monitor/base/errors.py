"""The one error a user is meant to read: what is wrong, where, and what to do."""

EXAMPLES_NAMED = 3
"""How many examples a message names where there may be many."""


class UserError(Exception):
    """Something the user can put right: a file, a key, a folder. Shown without a traceback, exit status 2."""


def all_problems(problems: list[str], heading: str) -> None:
    """Raise one `UserError` that lists every problem; do nothing where there is none."""
    if problems:
        raise UserError("\n".join([heading, *(f"  - {problem}" for problem in problems)]))
