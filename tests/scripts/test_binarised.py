"""Whether binarised data are complete."""

import sys

from tests.commands import REFERENCE, ROOT

sys.path.insert(0, str(ROOT / "scripts"))

import get_data  # noqa: E402


def test_seven_empty_files_are_not_complete(tmp_path):
    data = REFERENCE / "data" / "word"
    names = [f"{split}.{kind}" for split in get_data.SPLITS for kind in ("bin", "idx")]
    for name in [*names, "dict.txt"]:
        (tmp_path / name).write_bytes((data / name).read_bytes())
    assert get_data.is_binarised(tmp_path, get_data.SPLITS)
    for name in [*names, "dict.txt"]:
        whole = (tmp_path / name).read_bytes()
        for content in (b"", whole[:-1] if name != "dict.txt" else b"", whole[4:] if ".idx" in name else b""):
            (tmp_path / name).write_bytes(content)
            assert not get_data.is_binarised(tmp_path, get_data.SPLITS), name
        (tmp_path / name).write_bytes(whole)
    assert get_data.is_binarised(tmp_path, get_data.SPLITS)
