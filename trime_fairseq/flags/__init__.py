"""How a flag is named: lower rooms speak of arguments (`k`), the command that has the flag names it (--k)."""

import re

_ARGUMENT = re.compile(r"`([a-z]\w*)`")


def flag(name: str) -> str:
    """The flag that sets an argument: ``mem_size`` is ``--mem-size``."""
    return "--" + name.replace("_", "-")


def name_flags(message: str, **flags: str) -> str:
    """A message in which arguments stand in backticks, for the users of a command.

    Args:
        message: such as "`k` 30,000 exceeds the datastore".
        flags: of arguments whose flag is not :func:`flag` of their name.
    """
    return _ARGUMENT.sub(lambda found: flags.get(found[1], flag(found[1])), message)
