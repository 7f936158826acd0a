"""Finds a Java that Pyserini runs on: 21 or later, with the module ``jdk.incubator.vector``."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from glob import glob

OLDEST = 21
MODULE = "jdk.incubator.vector"
USUAL_PLACES = (
    "/usr/lib/jvm/*",
    "/usr/java/*",
    "/opt/*j[dr][ek]*",
    "~/.sdkman/candidates/java/*",
    "~/.jdks/*",
    "/Library/Java/JavaVirtualMachines/*/Contents/Home",
    "/opt/homebrew/opt/openjdk*/libexec/openjdk.jdk/Contents/Home",
)


def find_java() -> str:
    """The JAVA_HOME to use: that of the environment, of ``java`` on the PATH, or the newest installed.

    Raises:
        ValueError: if there is none, saying what was found and what to install.
    """
    unsuitable = []
    for home in _candidates():
        problem = _problem(home)
        if problem is None:
            return home
        unsuitable.append(f"{home} {problem}")
    found = f" (found: {'; '.join(unsuitable)})" if unsuitable else ""
    raise ValueError(
        f"`engine` lucene needs Java {OLDEST} or later with the module {MODULE}{found}: install a JDK, for "
        f"example openjdk-{OLDEST}-jdk or temurin-{OLDEST}-jdk, and set JAVA_HOME to its folder; or pass "
        "`engine` bm25s, which needs no Java"
    )


def use_java() -> None:
    """Sets the environment for Pyserini, in this process and its children.

    Raises:
        ValueError: if there is no suitable Java, or no Pyserini.
    """
    os.environ["JAVA_HOME"] = find_java()
    # Some releases make an OpenAI client when their searcher is imported, which is not used here.
    os.environ.setdefault("OPENAI_API_KEY", "unused")


def _candidates() -> Iterator[str]:
    seen = set()
    on_path = shutil.which("java")
    homes = [os.environ.get("JAVA_HOME"), _home_of(on_path)]
    usual = [home for place in USUAL_PLACES for home in glob(os.path.expanduser(place))]
    homes += sorted(usual, key=lambda home: _version(str(home)) or 0, reverse=True)
    for home in homes:
        if home and os.path.realpath(home) not in seen and os.path.exists(os.path.join(home, "bin", "java")):
            seen.add(os.path.realpath(home))
            yield home


def _home_of(program: str | None) -> str | None:
    return os.path.dirname(os.path.dirname(os.path.realpath(program))) if program else None


def _problem(home: str) -> str | None:
    """Why this Java will not do; None if it will."""
    version = _version(home)
    if version is None:
        return "does not run"
    if version < OLDEST:
        return f"is Java {version}"
    modules = subprocess.run([_program(home), "--list-modules"], capture_output=True, text=True)
    return None if MODULE in modules.stdout else f"lacks {MODULE}"


def _version(home: str) -> int | None:
    try:
        text = subprocess.run([_program(home), "-version"], capture_output=True, text=True).stderr
    except OSError:
        return None
    found = re.search(r'version "(\d+)(?:\.(\d+))?', text)
    if not found:
        return None
    # 1.8 is Java 8.
    return int(found.group(2) or 0) if found.group(1) == "1" else int(found.group(1))


def _program(home: str) -> str:
    return os.path.join(home, "bin", "java")
