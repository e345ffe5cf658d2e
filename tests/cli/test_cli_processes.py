"""Commands on two processes of torchrun write the bytes of one, and resume what another number of processes began."""

import networks
import pytest
from processes import run_together

import vitrail

pytest_plugins = ("tiny",)


@pytest.fixture
def data(make_photo, tmp_path):
    """Seven photos in two folders, and one that cannot be read."""
    for i in range(7):
        make_photo(tmp_path / "data" / ("amber" if i < 3 else "blue") / f"{i}.png", seed=i)
    (tmp_path / "data" / "blue" / "bad.png").write_bytes(b"no picture")
    return tmp_path / "data"


@pytest.fixture
def intr_file(tmp_path):
    vitrail.save(networks.intr(), tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


COMMANDS = {
    "files": ("explain", "--data", "DATA", "--method", "hit,rollout", "--batch-size", 2),
    "shards": (
        "explain",
        "--data",
        "DATA",
        "--method",
        "hit,rollout",
        "--batch-size",
        2,
        "--format",
        "shards",
        "--pictures",
        3,
    ),
    "test": ("test", "DATA", "--batch-size", 2),
    "layers": ("layers", "DATA", "--batch-size", 2),
    "queries": ("queries", "--data", "DATA", "--top", 2),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_two_processes_write_the_bytes_of_one(name, run_vitrail, tiny_model_file, intr_file, data, snapshot, tmp_path):
    model = intr_file if name == "queries" else tiny_model_file
    command = [data if argument == "DATA" else argument for argument in COMMANDS[name]]
    arguments = (*command, "-m", model, "--device", "cpu", "--out")
    code, printed, err = run_vitrail(*arguments, tmp_path / "one")
    assert code == 0, err
    whole = snapshot(tmp_path / "one")
    code, printed_by_two, err = run_together("-m", "vitrail", *arguments, tmp_path / "two")
    assert code == 0, err
    assert printed_by_two.replace("/two", "/one") == printed
    assert snapshot(tmp_path / "two") == whole
    # What is missing is computed again, by one process.
    for path in [*(tmp_path / "two").rglob("*.npz"), *(tmp_path / "two").rglob("*.safetensors")][::2]:
        path.unlink()
    code, _printed, err = run_vitrail(*arguments, tmp_path / "two")
    assert code == 0, err
    assert snapshot(tmp_path / "two") == whole


@pytest.mark.slow
def test_named_photos_are_not_shared(tiny_model_file, data, tmp_path):
    code, out, err = run_together(
        "-m", "vitrail", "explain", data / "amber" / "0.png", "-m", tiny_model_file, "-o", tmp_path / "out"
    )
    assert code != 0
    assert out == ""
    assert "expected one process for named photos" in err
