"""fairseq-interactive with a datastore: what the same sentences get in batches, constraints included."""

from argparse import Namespace

import pytest

from tests.commands import run
from tests.generation.translations import BEAM, generation, make_folder, open_task, printed

pytestmark = pytest.mark.process


@pytest.mark.slow
def test_lines_of_text(tmp_path):
    folder = make_folder(tmp_path)
    task, models = open_task(folder, knn_temperature_value=5.0)
    dataset = task.dataset("test")
    generator = task.build_generator(models, Namespace(**BEAM))
    lines, expected = [], {}
    for number in range(4):
        lines.append(task.source_dictionary.string(dataset[number]["source"]))
        sample = dataset.collater([dataset[number]])
        best = task.inference_step(generator, models, sample)[0][0]
        expected[str(number)] = task.target_dictionary.string(best["tokens"])
    (tmp_path / "lines").write_text("\n".join(lines) + "\n", encoding="utf-8")
    flags = "--beam 4 --max-len-a 1.2 --max-len-b 10 --lenpen 0.6 --knn-temperature-value 5 --dstore-fp16"
    flags += f" --use-knn-datastore --dstore-filename {folder}/store --indexfile {folder}/flat_ip --input"
    found = printed(run(*generation(flags, tmp_path / "lines", command="fairseq-interactive")))
    assert {number: entry["hypo"] for number, entry in found.items()} == expected
    # A word that must be there, after a tab.
    (tmp_path / "lines").write_text(f"{lines[0]}\tjerusalem\n", encoding="utf-8")
    words = generation(f"--constraints {flags}", tmp_path / "lines", command="fairseq-interactive")
    assert "jerusalem" in printed(run(*words))["0"]["hypo"]
