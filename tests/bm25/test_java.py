"""Finding a Java for Pyserini."""

import os

import pytest

from trime_fairseq.bm25.engines import java


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Makes a folder with a "java" that tells a version and modules; none else is to be found."""
    monkeypatch.setattr(java, "USUAL_PLACES", (str(tmp_path / "jvm" / "*"),))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("OPENAI_API_KEY", "mine")
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setattr(java.shutil, "which", lambda name: None)

    def made(name, version, modules=java.MODULE):
        folder = tmp_path / "jvm" / name / "bin"
        folder.mkdir(parents=True)
        program = folder / "java"
        program.write_text(
            f'#!/bin/sh\nif [ "$1" = -version ]; then echo \'openjdk version "{version}" 2025\' >&2; '
            f"else echo java.base@{version}; echo {modules}@{version}; fi\n"
        )
        program.chmod(0o755)
        return str(folder.parent)

    return made


def test_the_newest(install):
    install("a", "17.0.15")
    install("b", "21.0.2")
    newest = install("c", "25")
    install("d", "1.8.0_392")
    assert java.find_java() == newest


def test_the_chosen_one_comes_first(install, monkeypatch):
    chosen, _ = install("a", "21.0.2"), install("b", "25.0.3")
    monkeypatch.setenv("JAVA_HOME", chosen)
    assert java.find_java() == chosen
    java.use_java()
    assert os.environ["JAVA_HOME"] == chosen
    assert os.environ["OPENAI_API_KEY"] == "mine"


def test_an_unsuitable_choice_is_passed_over(install, monkeypatch):
    monkeypatch.setenv("JAVA_HOME", install("old", "17.0.15"))
    new = install("new", "22")
    assert java.find_java() == new


def test_none_that_will_do(install):
    with pytest.raises(ValueError, match="needs Java 21 or later .*install a JDK.*`engine` bm25s"):
        java.find_java()
    install("old", "1.8.0_392")
    install("trimmed", "24.0.1", modules="java.sql")
    with pytest.raises(ValueError, match=r"trimmed lacks jdk.incubator.vector; .*old is Java 8"):
        java.find_java()
