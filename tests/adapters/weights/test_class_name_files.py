"""Class names from texts and files, in every usual form."""

import json

import pytest

from vitrail.adapters.class_name_files import read_names
from vitrail.core.errors import InvalidInputError


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("names.txt", "crane\nbee, wild\ncat\n"),
        ("names.txt", "\ufeffcrane\r\nbee, wild\r\ncat\r\n\r\n"),
        ("classes", "crane\nbee, wild\ncat"),
        ("names.json", json.dumps(["crane", "bee, wild", "cat"])),
        ("names.json", json.dumps({"0": "crane", "2": "cat", "1": "bee, wild"})),
        ("names.json", json.dumps({"crane": 0, "bee, wild": 1, "cat": 2})),
        ("config.json", json.dumps({"model_type": "vit", "id2label": {"0": "crane", "1": "bee, wild", "2": "cat"}})),
        ("meta.json", json.dumps({"class_to_idx": {"cat": 2, "crane": 0, "bee, wild": 1}})),
    ],
)
@pytest.mark.parametrize("as_text", [True, False])
def test_files(file, content, as_text, tmp_path):
    path = tmp_path / file
    path.write_text(content, encoding="utf-8")
    assert read_names(str(path) if as_text else path) == ("crane", "bee, wild", "cat")


def test_texts_and_lists():
    assert read_names("crane, bee,cat") == ("crane", "bee", "cat")
    assert read_names(["crane", "bee, wild"]) == ("crane", "bee, wild")
    assert read_names("a photo of a cat", "prompts") == ("a photo of a cat",)
    assert read_names("long, " * 2000 + "end")[-1] == "end"
    assert read_names("crane,crane") == ("crane", "crane")  # Two classes of one name are two classes.


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("names.txt", "crane\n\ncat\n", "expected one of the class names per line in .*, got an empty line 2"),
        ("names.txt", "", "expected class names that are not empty, got none"),
        ("names.json", "[1, 2]", "a list of texts, or an object"),
        ("names.json", '{"0": "a", "2": "b"}', "from every index from 0"),
        ("names.json", '{"a": 0, "b": 0}', "from every index from 0"),
        ("names.json", '{"a": true}', "from every index from 0"),
        ("names.json", "{", "cannot read the class names in .*names.json"),
        ("names.txt", b"\xff\xfe\x00", "cannot read the class names in .*names.txt"),
    ],
)
def test_files_that_are_no_names(file, content, message, tmp_path):
    (tmp_path / file).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InvalidInputError, match=message):
        read_names(tmp_path / file)


def test_missing_files_and_missing_names(tmp_path):
    with pytest.raises(InvalidInputError, match=r"cannot read the class names in nowhere.txt: No such file"):
        read_names("nowhere.txt")
    with pytest.raises(InvalidInputError, match="cannot read the class names in"):
        read_names(tmp_path)
    for empty in ("", "a,,b", []):
        with pytest.raises(InvalidInputError, match="expected class names that are not empty"):
            read_names(empty)
