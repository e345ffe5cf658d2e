"""Two processes with the variables of srun write the bytes of one, without torchrun."""

import os
import subprocess
import sys

import pytest

pytest_plugins = ("tiny",)


def run_step(*arguments, processes=2, step=0, stdin=""):
    """Start processes as a step of srun does, which copies standard input to all; returns codes, outputs and errors."""
    step = {"SLURM_JOB_ID": str(os.getpid()), "SLURM_STEP_ID": str(step), "SLURM_STEP_NUM_TASKS": str(processes)}
    step |= {"SLURM_STEP_NUM_NODES": "1", "SLURM_STEP_NODELIST": "localhost", "OMP_NUM_THREADS": "1"}
    programs = [
        subprocess.Popen(
            [sys.executable, "-m", "vitrail", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **step, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)},
        )
        for rank in range(processes)
    ]
    for program in programs:
        program.stdin.write(stdin)
        program.stdin.close()
        program.stdin = None
    ends = [program.communicate(timeout=240) for program in programs]
    return [program.returncode for program in programs], [out for out, _ in ends], [err for _, err in ends]


@pytest.fixture
def data(make_photo, tmp_path):
    for i in range(5):
        make_photo(tmp_path / "data" / ("amber" if i < 3 else "blue") / f"{i}.png", seed=i)
    return tmp_path / "data"


@pytest.mark.slow
def test_a_step_of_two_tasks_writes_the_bytes_of_one(run_vitrail, tiny_model_file, data, snapshot, tmp_path):
    arguments = (
        "explain",
        "--data",
        data,
        "-m",
        tiny_model_file,
        "--method",
        "hit",
        "--batch-size",
        2,
        "--device",
        "cpu",
        "--out",
    )
    code, printed, err = run_vitrail(*arguments, tmp_path / "one")
    assert code == 0, err
    codes, outs, errs = run_step(*arguments, tmp_path / "two")
    assert codes == [0, 0], errs
    assert [out.replace("/two", "/one") for out in outs] == [printed, ""]
    assert snapshot(tmp_path / "two") == snapshot(tmp_path / "one")
    assert "5 images" in errs[0]


@pytest.mark.slow
def test_a_list_from_standard_input_is_shared(tiny_model_file, data, snapshot, tmp_path):
    listed = "".join(f"{path}\n" for path in sorted(data.rglob("*.png")))
    arguments = (
        "explain",
        "--data",
        "-",
        "-m",
        tiny_model_file,
        "--method",
        "hit",
        "--batch-size",
        2,
        "--device",
        "cpu",
        "--out",
    )
    for processes in (1, 2):
        codes, _outs, errs = run_step(*arguments, tmp_path / str(processes), processes=processes, step=1, stdin=listed)
        assert codes == [0] * processes, errs
    assert snapshot(tmp_path / "1") == snapshot(tmp_path / "2")
    assert len(list((tmp_path / "2").rglob("*.npz"))) == 5


@pytest.mark.slow
def test_one_failure_ends_all_tasks(tiny_model_file, tmp_path):
    codes, outs, errs = run_step("explain", "--data", tmp_path / "no", "-m", tiny_model_file, "--out", tmp_path / "out", step=2)
    assert (codes, outs) == ([2, 2], ["", ""])
    assert sum(err.count("error: ") for err in errs) == 1, errs
