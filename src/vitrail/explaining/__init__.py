"""Whole folders of images explained by several methods, in runs that can be stopped and gone on with."""

from vitrail.explaining.folder import FolderResults, explain_folder
from vitrail.explaining.results import MethodResults
from vitrail.run import Run

__all__ = ["FolderResults", "MethodResults", "Run", "explain_folder"]
