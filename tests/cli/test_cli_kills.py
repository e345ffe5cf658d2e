"""Killed three times in the middle of a write and resumed by two processes, every command writes the bytes of one uninterrupted process."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import networks
import pytest
from processes import run_together
from samples import CLASS_NAMES
from score_files import RESULTS
from tar_files import encoded, write_tar

import vitrail

pytest_plugins = ("tiny",)

PROGRAM = Path(__file__).parents[1] / "support" / "killed_program.py"

NUM_IMAGES = 13
BROKEN = 5
"""Index of the image that cannot be read."""

EXPLAIN = ("explain", "--data", "DATA", "--method", "hit,rollout", "--batch-size", 2)
SCORING = ("--batch-size", 2, "--steps", 2, "--method", "hit")

COMMANDS = {
    "explain files, list": ("list", EXPLAIN),
    "explain shards, tars": ("tars", (*EXPLAIN, "--format", "shards", "--pictures", 2, "--workers", 1)),
    "explain parquet, table": ("table", (*EXPLAIN, "--format", "parquet", "--pictures", "none")),
    "queries, tars": ("tars", ("queries", "--data", "DATA", "--top", 2, "--workers", 1)),
    "test, table": ("table", ("test", "DATA", "--batch-size", 2)),
    "layers, list": ("list", ("layers", "DATA", "--batch-size", 2)),
    "score, tars": ("tars", ("score", "DATA", *SCORING)),
    "compare, table": ("table", ("compare", "DATA", *SCORING)),
}


@pytest.fixture
def sources(tmp_path):
    """The same images, of two classes and one of them damaged, in three kinds of sources."""
    contents = [encoded(i) if i != BROKEN else b"no picture" for i in range(NUM_IMAGES)]
    labels = [i % 2 for i in range(NUM_IMAGES)]
    for i, content in enumerate(contents):
        path = tmp_path / "folder" / f"{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    (tmp_path / "list.txt").write_text("".join(f"folder/{i:02d}.png\n" for i in range(NUM_IMAGES)))
    for number in range(2):
        members = [
            member
            for i in range(number, NUM_IMAGES, 2)
            for member in ((f"{i:02d}.png", contents[i]), (f"{i:02d}.cls", str(labels[i]).encode()))
        ]
        write_tar(tmp_path / "tars" / f"{number}.tar", *members)
    (tmp_path / "tars" / "classes.txt").write_text("\n".join(CLASS_NAMES[:2]))

    def get(kind):
        if kind != "table":
            return tmp_path / {"list": "list.txt", "tars": "tars"}[kind]
        datasets = pytest.importorskip("datasets", reason="pip install 'vitrail[datasets]'")
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASS_NAMES[:2]))})
        cells = {"image": [{"bytes": content, "path": None} for content in contents], "label": labels}
        (tmp_path / "table" / "data").mkdir(parents=True)
        file = tmp_path / "table" / "data" / "test-00000-of-00001.parquet"
        datasets.Dataset.from_dict(cells, features=features).to_parquet(str(file))
        return tmp_path / "table"

    return get


@pytest.fixture
def models(tiny_model_file, tmp_path):
    """By command, the models."""
    vitrail.save(networks.intr(), tmp_path / "intr.safetensors")
    shutil.copy(tiny_model_file, tmp_path / "other.safetensors")
    return {"queries": tmp_path / "intr.safetensors", "compare": f"{tiny_model_file},{tmp_path / 'other.safetensors'}"}


def run(write, *arguments):
    """Run the program in a single process; returns its exit code and standard error."""
    program = subprocess.run(
        [sys.executable, PROGRAM, str(write), "0", *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    return program.returncode, program.stderr


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_a_run_killed_three_times_ends_with_the_same_bytes(name, sources, models, tiny_model_file, snapshot, tmp_path):
    kind, command = COMMANDS[name]
    data = sources(kind)
    command = [data if argument == "DATA" else argument for argument in command]
    arguments = (*command, "-m", models.get(command[0], tiny_model_file), "--device", "cpu", "-o")

    def results(out):
        every = snapshot(out)
        timed = command[0] in ("score", "compare")  # Shards and cost.json hold times there.
        return {name: content for name, content in every.items() if not timed or Path(name).name in RESULTS}

    code, err = run(0, *arguments, tmp_path / "one")
    assert code == 0, err
    whole = results(tmp_path / "one")
    found = [0]
    for write, together in ((3, False), (2, True), (4, False)):
        if together:
            code, _printed, err = run_together(PROGRAM, write, 1, *arguments, tmp_path / "killed")
            assert code != 0
            assert "(SIGKILL)" in err
        else:
            code, err = run(write, *arguments, tmp_path / "killed")
            assert code == -signal.SIGKILL, err
        found.append(len([path for path in (tmp_path / "killed").rglob("*") if path.is_file()]))
        assert found[-1] > found[-2]
    assert list((tmp_path / "killed").rglob(".partial-*"))
    code, _printed, err = run_together(PROGRAM, 0, 0, *arguments, tmp_path / "killed")
    assert code == 0, err
    assert results(tmp_path / "killed") == whole
    assert not list((tmp_path / "killed").rglob(".*"))
