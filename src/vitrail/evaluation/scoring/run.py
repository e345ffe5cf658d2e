"""One model scored into a folder: claimed, measured, gone on with."""

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrail.adapters import Classifier
from vitrail.core.distributed import gather, rank
from vitrail.core.errors import InvalidInputError
from vitrail.core.files import output_folder, real_path
from vitrail.core.json_io import json_text, parse_json
from vitrail.core.locking import only_run
from vitrail.datasets.dataset import LabeledImages
from vitrail.evaluation.scoring.claim import claim, expect_place
from vitrail.evaluation.scoring.cost import passes_of_first
from vitrail.evaluation.scoring.engine import LABEL, score
from vitrail.evaluation.scoring.plan import Plan
from vitrail.evaluation.scoring.scores import Scores
from vitrail.evaluation.scoring.selection import Selection
from vitrail.evaluation.scoring.sheets import write_sheets
from vitrail.explainers import Explainer
from vitrail.runs.manifest import Run, describe_method, describe_model

logger = logging.getLogger(__name__)


def fingerprint_model(images: LabeledImages) -> str:
    """A digest of which images these are, in order: names, labels, and the sizes of their files where they have some."""
    digest = hashlib.sha256()
    for index, label in enumerate(images.labels):
        name = images.name(index)
        try:
            size = Path(name).stat().st_size
        except OSError:  # It is no file, or cannot be read: that is told elsewhere.
            size = -1
        digest.update(f"{name}\0{label}\0{size}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:32]


@dataclass(frozen=True, eq=False)
class ScoringRun:
    """What is scored, and how.

    Attributes:
        plan: What to measure.
        choice: Of which images.
        batch_size: Images that are explained at once; part of what was done, since rounding depends on it.
        num_workers: Processes that read images.
        overwrite: Whether earlier results are replaced.
    """

    plan: Plan
    choice: Selection
    batch_size: int = 16
    num_workers: int = 0
    overwrite: bool = False

    def score_into(
        self,
        folder: Path,
        classifier: Classifier,
        explainers: Sequence[Explainer],
        images: LabeledImages,
        data: Mapping[str, Any],
        before_writing: Callable[[], object] | None = None,
    ) -> tuple[Scores, dict[str, str]]:
        """Score a model, or go on where an earlier call of the same kind was stopped; write contact sheets.

        Inside `vitrail.core.distributed.process_group` the processes share the work; the first one writes the sheets.

        Args:
            folder: For what is measured, one that all processes share.
            classifier: The model.
            explainers: Methods tied to it.
            images: All there are, with the model's preprocessing.
            data: What tells these images from others, ready for JSON.
            before_writing: Called by the first process when nothing is left to refuse, before anything is written.

        Returns:
            The scores, and the captions of the sheets by file name.

        Raises:
            InvalidInputError: The folder lies among the images, or the target is no class of the model.
            OutputError: The folder holds something else, or scores that were made otherwise, another run writes there, or it cannot be
                written.
        """
        root, explained = self.choice.root, self.choice.explained
        if root is not None and real_path(folder).is_relative_to(real_path(root)):
            raise InvalidInputError(
                f"expected the results outside of the images, got {folder} inside {root}, where pictures would be taken for images; "
                "choose another --out"
            )
        if explained not in (None, LABEL):
            explained = classifier.class_index(explained)
        images = self.choice.apply(images, classifier, self.plan, max(self.batch_size, 64), self.num_workers)
        settings = {
            **describe_model(classifier, None),
            **data,
            **self.choice.describe(),
            "target": explained,
            "batch_size": self.batch_size,
            "num_images": len(images),
            "images": fingerprint_model(images),
            "metrics": parse_json(json_text(self.plan.options)),
        }
        run = Run(settings, {each.name: describe_method(each) for each in explainers})
        if rank() == 0:
            expect_place(folder, run, self.overwrite)
        # A trial before earlier results are replaced.
        passes = passes_of_first(classifier, images, explainers)
        with ExitStack() as held:
            if rank() == 0:
                if before_writing is not None:
                    before_writing()
                held.enter_context(only_run(output_folder(folder)))
                if claim(folder, run, self.overwrite):
                    logger.info("going on in %s", folder)
            gather([None])  # Nobody looks into the folder before it is claimed.
            scores = score(
                classifier, images, explainers, self.plan, explained, self.batch_size, self.num_workers, folder, passes, run.key
            )
            captions = dict[str, str]()
            if rank() == 0:
                captions = write_sheets(folder, scores, self.plan, images, explainers)
        return scores, captions
