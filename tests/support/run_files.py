"""Files of a training run, read back."""

import csv
from pathlib import Path

import torch
from torch import Tensor


def read_metrics(run: Path) -> list[dict[str, str]]:
    """Read the rows of `metrics.csv`."""
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def read_column(run: Path, name: str) -> list[float]:
    """Read a figure of all epochs that have it."""
    return [float(row[name]) for row in read_metrics(run) if row.get(name)]


def read_curve(run: Path, *names: str) -> Tensor:
    """Read figures of all epochs: one row per epoch, one column per figure."""
    return torch.tensor([[float(row[name]) for name in names] for row in read_metrics(run)], dtype=torch.float64)


def read_figures(run: Path) -> list[dict[str, str]]:
    """Read the rows of `metrics.csv` without times, which differ between runs."""
    return [{name: value for name, value in row.items() if not name.endswith("seconds")} for row in read_metrics(run)]
