"""Writes docs/flags.md: the flags of task, criterions and commands, from their definitions.

python docs/scripts/flags.py
"""

import argparse
import dataclasses
import re
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any

PAGE = Path(__file__).resolve().parent.parent / "flags.md"
PACKAGE = "trime_fairseq"

HEAD = """# All flags

Every flag that this package adds, with its default. `python docs/scripts/flags.py` makes this page from their
definitions.

fairseq's `--help` does not show the flags of a plug-in. The commands of this package show theirs:
`trime-tune --help`.

Flags of task and criterions are fields of dataclasses: in `fairseq-hydra-train` the flag `--mem-size` is
`task.mem_size`.
"""


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The whole page."""
    sections = [HEAD, "## `--task` and `--criterion`", *config_sections(), "## Commands", *command_sections()]
    return "\n".join(section.strip() + "\n" for section in sections)


# Flags of task and criterions: fields of dataclasses that are defined in this package.


def config_sections() -> Iterator[str]:
    """A table for each class that defines fields, with the names that inherit it."""
    import fairseq.criterions as criterions
    import fairseq.tasks as tasks

    import trime_fairseq.tasks  # noqa: F401

    users: dict[type, list[str]] = {}
    for flag, registry, configs in (
        ("--task", tasks.TASK_REGISTRY, tasks.TASK_DATACLASS_REGISTRY),
        ("--criterion", criterions.CRITERION_REGISTRY, criterions.CRITERION_DATACLASS_REGISTRY),
    ):
        for name in filter(configs.get, registry):
            if not is_ours(registry[name]):
                continue  # fairseq's, or one that was registered beside this package
            for cls in configs[name].__mro__:
                if is_ours(cls) and dataclasses.is_dataclass(cls) and own_fields(cls):
                    users.setdefault(cls, []).append(f"`{flag} {name}`")
    # The task first; of the criterions what all of them have.
    by_use = sorted(users.items(), key=lambda item: ("--task" not in item[1][0], -len(item[1])))
    for cls, names in by_use:
        rows = [field_row(field) for field in own_fields(cls)]
        yield f"### {title(cls)}\n\nOf {', '.join(sorted(names))}.\n\n{table(rows)}"


def is_ours(cls: type) -> bool:
    return cls.__module__.split(".")[0] == PACKAGE


def own_fields(cls: type) -> list[Any]:
    """The fields that a class declares itself, without those that only repeat a value of another group."""
    declared = cls.__dict__.get("__annotations__", {})
    fields = [field for field in dataclasses.fields(cls) if field.name in declared]
    return [field for field in fields if not str(field.default).startswith("${")]


def title(cls: type) -> str:
    """``MemoryConfig`` is "Memory"."""
    words = re.findall("[A-Z][a-z0-9]*", cls.__name__.removesuffix("Config"))
    return " ".join(words).capitalize().replace("Trime ", "TRIME ")


def field_row(field: Any) -> tuple[str, str, str]:
    flag = "--" + field.name.replace("_", "-")
    default, help = field.default, field.metadata.get("help", "")
    if isinstance(default, bool):
        return flag, "off" if not default else "on", help
    kind = choices(field.type)
    return f"{flag} {kind}".strip(), shown(default), help


def choices(kind: Any) -> str:
    """The values of a choice; nothing for other types."""
    for candidate in (kind, *getattr(kind, "__args__", ())):
        if isinstance(candidate, type) and issubclass(candidate, Enum):
            return "{" + ",".join(str(member.value) for member in candidate) + "}"
    return ""


def shown(default: Any) -> str:
    if default is None or default is dataclasses.MISSING or default == argparse.SUPPRESS:
        return ""
    return str(default.value if isinstance(default, Enum) else default)


# Flags of the commands.


def command_sections() -> Iterator[str]:
    from trime_fairseq.cli import bm25, build_index, datastore
    from trime_fairseq.comparison import arguments
    from trime_fairseq.tuning import request
    from trime_fairseq.tuning.translation import request as translation

    for module in (request, translation, arguments, build_index, datastore, bm25):
        parser = module.get_parser()
        yield f"### `{parser.prog}`\n\n{sentence(parser.description)}"
        subcommands = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if not subcommands:
            yield table(parser_rows(parser))
        for name, subparser in (item for action in subcommands for item in action.choices.items()):
            yield f"#### `{parser.prog} {name}`\n\n{sentence(subparser.description)}"
            yield table(parser_rows(subparser))


def sentence(description: str | None) -> str:
    return (description or "").partition(" See docs/")[0].strip()


def parser_rows(parser: argparse.ArgumentParser) -> list[tuple[str, str, str]]:
    return [
        argument_row(action)
        for action in parser._actions
        if action.dest not in ("help", "command", "version")
    ]


def argument_row(action: argparse.Action) -> tuple[str, str, str]:
    # The default is in the column. What depends on the machine (cores, engines) is not said.
    help = re.sub(
        r"\s*\((default: )?(all cores, )?%\(default\)s\)|default: (all cores, )?%\(default\)s",
        "",
        action.help or "",
    )
    help = re.sub(r"; here \w+\)", ")", help)
    default = "all cores" if "all cores" in (action.help or "") else shown(action.default)
    flag = action.option_strings[0] if action.option_strings else action.metavar or action.dest
    if action.nargs == 0:
        return str(flag), "off", help
    value = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.metavar
    value = "" if not action.option_strings else value or {int: "N", float: "X"}.get(action.type, "TEXT")
    return f"{flag} {value}".strip(), "required" if action.required else default, help


def table(rows: list[tuple[str, str, str]]) -> str:
    lines = ["| flag | default | what it does |", "| --- | --- | --- |"]
    for flag, default, help in rows:
        cells = (
            f"`{flag}`",
            f"`{default}`" if default not in ("", "off", "on", "required") else default,
            help,
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
