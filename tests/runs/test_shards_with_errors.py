"""Standard errors survive in shards, beside methods that have none."""

import pytest
import torch

import vitrail
from vitrail.api import explain_folder

pytest_plugins = ("tiny",)


@pytest.mark.parametrize("file_format", ["shards", "parquet"])
def test_standard_errors_are_read_back(file_format, make_photo, tiny_model_file, tmp_path):
    if file_format == "parquet":
        pytest.importorskip("pyarrow")
    for number in range(3):
        make_photo(tmp_path / "photos" / f"{number}.png", seed=number)
    model = vitrail.load(tiny_model_file, device="cpu")
    options = {"rise": {"num_masks": 8, "seed": 1}}
    explain_folder(
        model,
        tmp_path / "photos",
        tmp_path / "out",
        ["rise", "hit"],
        file_format=file_format,
        method_options=options,
        batch_size=2,
    )
    run = vitrail.open_run(tmp_path / "out")
    for number in range(3):
        direct = vitrail.explain(model, tmp_path / "photos" / f"{number}.png", "rise", **options["rise"])
        torch.testing.assert_close(run["rise"][number].standard_error, direct.standard_error)
        assert run["hit"][number].standard_error is None
