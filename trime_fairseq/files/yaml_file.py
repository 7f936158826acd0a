"""YAML, read strictly: a key that stands twice is an error, not the last of the two."""

from collections.abc import Hashable
from typing import Any

import yaml


class _StrictLoader(yaml.SafeLoader):  # type: ignore[misc]  # PyYAML has no types
    """Safe, and without silent duplicates."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1
                raise ValueError(
                    f"{key}: there {keys.count(key)} times, in what begins at line {line}: leave one"
                )
        content: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return content


def read_yaml(text: str, where: str) -> Any:
    """The content of a YAML text.

    Args:
        where: begins error messages: the file or the flag.

    Raises:
        ValueError: if it is no YAML, or a key stands twice in one mapping.
    """
    try:
        return yaml.load(text, _StrictLoader)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, TypeError, RecursionError) as error:
        raise ValueError(f"{where} is no YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
