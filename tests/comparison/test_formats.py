"""Markdown, LaTeX, CSV and JSON: nothing that a model may be called breaks them."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest

from trime_fairseq.comparison.cells import Remarks, footnotes, settings
from trime_fairseq.comparison.formats import as_json, comma_separated, escape_tex, latex, markdown
from trime_fairseq.comparison.table import make_table

from .made_up import ORDINARY, compared, with_remarks

NASTY = 'a|b & 50% of_"x", $y^2$ {z} \\n #1 ~ <i> `code` *\n[l](u) − λ'


@pytest.fixture
def nasty():
    comparison, results = compared((NASTY, {"none": 1234.5, "cache 64": 1300.0}, 2), *ORDINARY)
    results["plain LM"][0] = with_remarks(results["plain LM"][0], "a | limit", "50% & more")
    results["TrimeLM_ext"][0] = with_remarks(results["TrimeLM_ext"][0], "50% & more")
    rows = make_table(comparison, results)
    return comparison, results, rows, footnotes(comparison, results, "trime-compare 'a|b'")


def test_markdown(nasty):
    *_, rows, notes = nasty
    table, *below = markdown(rows, notes).split("\n\n")
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in table.splitlines()]
    assert {len(line) for line in lines} == {10}
    heads = [cell.strip() for cell in lines[0]]
    assert heads == [
        *("model", "memory", "tuned settings", "tuning ppl", "test ppl", "95% interval", "each checkpoint"),
        *("change", "95% interval", "mass"),
    ]
    assert len(lines) == 2 + len(rows)
    first, second = ([cell.strip() for cell in line] for line in lines[2:4])
    assert first[0] == (
        r"a\|b & 50% of\_\"x\", $y^2$ {z} \\n #1 ~ \<i\> \`code\` \* \[l\](u) − λ".replace(r"\"", '"')
    )
    assert first[4] == "1,240.66"
    assert first[6] == "1,234.50 / 1,246.85"
    assert first[7] == "baseline"
    assert second[2] == "T 1.19, 64 tokens, cache λ 0.125"
    assert second[7] == "+5.3%"
    knn = [cell.strip() for cell in lines[7]]
    assert knn[2].endswith("<sup>a,b</sup>")
    assert knn[7].startswith("−")
    assert lines[-1][2].strip().endswith("<sup>b</sup>")
    assert below[0] == r"<sup>a</sup> a \| limit"
    assert below[1] == "<sup>b</sup> 50% & more"
    assert below[-1].strip() == r"Command: trime-compare 'a\|b'"
    assert "3,980 tokens of test in 40 samples" in below[2]
    assert "10,000 resamples of whole samples (seed 1)" in below[3]


def test_latex(nasty):
    *_, rows, notes = nasty
    text = latex(rows, notes)
    table = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    lines = [line for line in table.splitlines() if line.endswith(r" \\")]
    assert len(lines) == 1 + len(rows)
    assert {len(re.findall(r"(?<!\\)&", line)) for line in lines} == {9}
    assert r"\begin{tabular}{lllrrrrrrr}" in text
    assert text.count(r"\midrule") == 4
    assert "(seed 1)" in text
    assert r"\textsuperscript{a,b}" in text
    # Everything special is escaped, in notes too.
    assert not re.findall(r"(?<!\\)[%#_]", text.split("\n", 1)[1])


def test_escapes_of_latex():
    assert escape_tex("--mem-size 5 ---") == "-{}-mem-size 5 -{}--"
    assert escape_tex(NASTY) == (
        r'a\textbar{}b \& 50\% of\_"x", \$y\textasciicircum{}2\$ \{z\} \textbackslash{}n \#1 '
        r"\textasciitilde{} \textless{}i\textgreater{} `code` * [l](u) $-$ $\lambda$"
    )


def test_csv(nasty):
    *_, rows, _ = nasty
    read = list(csv.DictReader(io.StringIO(comma_separated(rows))))
    assert len(read) == len(rows)
    assert read[0]["model"] == NASTY
    assert float(read[0]["test_ppl_max"]) == pytest.approx(1246.845)
    assert [float(ppl) for ppl in read[0]["test_ppl_of_checkpoints"].split()] == pytest.approx(
        [1234.5, 1246.845]
    )
    assert (read[0]["change_percent"], read[0]["change_nats_low"]) == ("", "")
    knn = read[5]
    assert float(knn["test_ppl"]) == pytest.approx(103.0, rel=1e-12)
    assert float(knn["share_neighbours"]) == 0.1
    assert knn["flags"] == "--exact_tails --use_local --softmax_temp"
    assert knn["remarks"] == "a | limit; 50% & more"
    assert float(knn["change_percent_low"]) < float(knn["change_percent"]) < float(knn["change_percent_high"])


def test_json(nasty):
    comparison, results, rows, notes = nasty
    content = json.loads(json.dumps(as_json(comparison, results, rows, notes, "command"), allow_nan=False))
    assert content["baseline"] == [NASTY, "none"]
    assert content["rows"][0]["change_percent"] is None
    second = content["rows"][1]
    assert second["test_ppl_interval"][0] < second["test_ppl"] < second["test_ppl_interval"][1]
    assert [point["mem_size"] for point in second["checkpoints"][0]["by_size"]] == [0, 64]
    assert [found["checkpoint"] for found in second["checkpoints"]] == [f"{NASTY}-0.pt", f"{NASTY}-1.pt"]
    assert "nll" not in second["checkpoints"][0]
    assert content["test_tokens"] == 3980


def test_settings():
    """Idle ones are left out."""
    local = {"use_local": True, "use_long": True, "mem_size": 2048, "softmax_temp": 1.189}
    joint = {**local, "use_external": True, "use_interp": True, "k": 64}
    knn = {"knnlm": True, "k": 64}
    both = {**local, **knn, "mode": "li", "interp_temp": 16.0}
    seen = "T 1.19, 2,048 tokens"
    cases = {
        "": {"mode": "lm"},
        f"{seen}, 64 neighbours, kNN λ 0": {**joint, "lmbda": 0.0},
        f"{seen}, 64 neighbours, kNN T 8, kNN λ 0.1": {**joint, "interp_temp": 8.0, "lmbda": 0.1},
        "64 neighbours, kNN T 11.3, kNN λ 0.25": {**knn, "lmbda": 0.25, "softmax_temp": 11.31},
        "kNN λ 0": {**knn, "lmbda": 0.0},
        f"{seen}, cache λ 0.2, 64 neighbours, kNN T 16, kNN λ 0.1": {
            **both,
            "cache_lmbda": 0.2,
            "lmbda": 0.1,
        },
        "cache λ 0, kNN λ 0": {**both, "cache_lmbda": 0.0, "lmbda": 0.0},
    }
    comparison, results = compared(("a", {"cache": 9.0}, 1))
    (row,) = make_table(comparison, results)
    for text, setting in cases.items():
        measured = replace(row.of_checkpoints[0], setting=setting)
        assert settings(replace(row, of_checkpoints=(measured,))) == text
        other = replace(measured, setting={"use_local": True, "softmax_temp": 1.0})
        several = settings(replace(row, of_checkpoints=(measured, other, measured)))
        assert several == f"{text} / T 1"


def test_letters_go_on_after_z():
    comparison, results = compared(ORDINARY[0])
    texts = [f"limit {number}" for number in range(30)]
    results["plain LM"][0] = with_remarks(results["plain LM"][0], *texts)
    letters = Remarks(make_table(comparison, results)).letters
    assert [letters[texts[position]] for position in (0, 25, 26, 27)] == ["a", "z", "aa", "ab"]
