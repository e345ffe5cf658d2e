"""Explanations in Parquet files: the same as in the other shards, and what other readers see of them."""

import os

import pytest
import torch
from samples import noisy_photo

import vitrail
from vitrail.core.errors import CheckpointError, InvalidInputError, MissingExtraError, OutputError
from vitrail.explainers import make_explainer
from vitrail.runs import explain_folder as folder_run
from vitrail.runs import explain_shards, parquet_shards
from vitrail.runs.explain_folder import explain_folder

pytest_plugins = ("tiny",)

METHODS = ("hit", "rollout")

needs_pyarrow = pytest.mark.skipif(
    not __import__("importlib.util").util.find_spec("pyarrow"), reason="pip install 'vitrail[parquet]'"
)


@pytest.fixture(scope="module")
def classifier(tiny_model_file):
    return vitrail.load(tiny_model_file, device="cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Six photos, one with a name that is not UTF-8, and one that cannot be read."""
    root = tmp_path_factory.mktemp("data")
    for i in range(5):
        noisy_photo(i).save(root / f"{i}.png")
    noisy_photo(5).save(root / "last.png")
    (root / "last.png").rename(root / os.fsdecode(b"\xe9.png"))
    (root / "bad.png").write_bytes(b"no picture")
    return root


@pytest.fixture
def explain(classifier, data, monkeypatch):
    """A function that explains into shards of four images, with two rows per group."""
    monkeypatch.setattr(folder_run, "IMAGES_PER_SHARD", 4)
    monkeypatch.setattr(parquet_shards, "ROWS_PER_GROUP", 2)

    def run(out, file_format="parquet", **options):
        explainers = [make_explainer(name, classifier) for name in METHODS]
        return explain_folder(explainers, data, out, batch_size=2, file_format=file_format, pictures="none", **options)

    return run


@needs_pyarrow
@pytest.mark.parametrize("half", [False, True])
def test_parquet_files_hold_what_shards_hold(half, explain, tmp_path):
    results = explain(tmp_path / "parquet", half=half)
    explain(tmp_path / "shards", "shards", half=half)
    assert (results.num_images, len(results.unreadable)) == (6, 1)
    run, expected = vitrail.open_run(tmp_path / "parquet"), vitrail.open_run(tmp_path / "shards")
    assert run.images == expected.images
    for method in METHODS:
        for index, (one, other) in enumerate(zip(run[method], expected[method], strict=True)):
            for found in (one, run[method][index], run[method][run.images[index]]):
                assert (found.sources, found.class_names, found.model) == (other.sources, other.class_names, other.model)
                assert (found.bias is None) == (other.bias is None) == (method == "rollout")
                for name, tensor in other._tensors().items():
                    torch.testing.assert_close(getattr(found, name), tensor, rtol=0, atol=0)
    tables = [(tmp_path / name / "images.csv").read_bytes() for name in ("parquet", "shards")]
    assert tables[0].replace(b".parquet", b".safetensors") == tables[1]


@needs_pyarrow
def test_other_readers_see_one_row_per_image(explain, tmp_path):
    from pyarrow import parquet

    explain(tmp_path / "out")
    rows = parquet.read_table(tmp_path / "out" / "shards" / "000001.parquet").to_pylist()
    expected = vitrail.open_run(tmp_path / "out")["hit"]
    assert [row["image"] for row in rows] == ["4.png", "\\udce9.png"]
    assert [row["index"] for row in rows] == [4, 6]
    for row, one in zip(rows, expected[4:], strict=True):
        assert (row["hit.rows"], row["hit.columns"]) == one.grid
        assert row["hit.relevance"] == one.relevance.flatten().tolist()
        assert (row["hit.target"], row["hit.bias"]) == (int(one.targets[0]), float(one.bias[0]))
        assert row["logits"] == one.logits[0].tolist()


@needs_pyarrow
def test_interruptions_and_damage_change_no_byte(explain, tmp_path, snapshot, monkeypatch):
    explain(tmp_path / "out")
    whole = snapshot(tmp_path / "out")
    calls, original = [], explain_shards.explain_images

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(explain_shards, "explain_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            explain(tmp_path / "stopped")
    explain(tmp_path / "stopped")
    assert snapshot(tmp_path / "stopped") == whole
    shard = tmp_path / "out" / "shards" / "000000.parquet"
    for damage in (lambda: shard.unlink(), lambda: shard.write_bytes(shard.read_bytes()[:-9])):
        damage()
        with pytest.raises((CheckpointError, OSError)):
            vitrail.open_run(tmp_path / "out")["hit"][0]
        explain(tmp_path / "out")
        assert snapshot(tmp_path / "out") == whole
    with pytest.raises(OutputError, match='file_format: "parquet" there, "shards" now'):
        explain(tmp_path / "out", "shards")


def test_without_pyarrow_nothing_is_written(explain, tmp_path, monkeypatch, unchecked):
    monkeypatch.setitem(__import__("sys").modules, "pyarrow.parquet", None)
    with pytest.raises(MissingExtraError, match=r"the format parquet needs .*pip install 'vitrail\[parquet\]'"):
        explain(tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(InvalidInputError, match="expected file_format 'files', 'shards' or 'parquet', got 'csv'"):
        explain(tmp_path / "out", "csv")
