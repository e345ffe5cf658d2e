"""Callback that draws masks of validation images while gates train."""

import logging
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, final

import lightning
import numpy as np
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import TensorBoardLogger, WandbLogger
from PIL import Image

from vitrail.adapters import ViTAdapter
from vitrail.core.errors import UnsupportedModelError
from vitrail.core.types import Images
from vitrail.datasets.collate import collate
from vitrail.datasets.dataset import LabeledImages
from vitrail.explainers import EXPLAINERS, make_explainer
from vitrail.explanation import Explanation
from vitrail.models.diffmask import TrainedMask
from vitrail.training.diffmask.config import PicturesConfig
from vitrail.training.reproducibility import preserve_random_state
from vitrail.viz.sheet import SheetRow, contact_sheet

logger = logging.getLogger(__name__)

FOLDER = "pictures"
REFERENCE_METHODS = ("rollout", "grad-cam")
"""Methods drawn next to the masks; those that cannot explain the network are skipped."""


@final
class MaskPictures(Callback):
    """Draw masks of validation images of all classes at a fixed interval, next to attention rollout and Grad-CAM.

    Writes PNG files to `pictures/` and sends them to the run's TensorBoard and Weights & Biases loggers.
    """

    def __init__(self, folder: Path, vit: ViTAdapter, mask: TrainedMask, config: PicturesConfig) -> None:
        self.folder, self.vit, self.mask, self.config = folder / FOLDER, vit, mask, config
        self.images: Images | None = None
        self.titles: list[str] = []
        self.references: list[Explanation] = []
        self.drawn_step = -1

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = self.config.every
        if every is not None and trainer.global_step % every == 0:
            self._draw_once(trainer)

    def on_train_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self._draw_once(trainer)

    def _draw_once(self, trainer: lightning.Trainer) -> None:
        if trainer.is_global_zero and trainer.global_step != self.drawn_step:
            self.drawn_step = trainer.global_step
            with preserve_random_state():
                self._draw(trainer)

    def _draw(self, trainer: lightning.Trainer) -> None:
        images = self._read_images(trainer)
        if images is None:
            return
        masks = make_explainer("diffmask", self.vit, checkpoint=self.mask, check_weights=False).explain(images)
        columns = [masks, *self.references]
        photos = [_as_photo(image) for image in self.vit.preprocessing.denormalize(images).cpu()]
        whole = [(0.0, 0.0, float(photo.width), float(photo.height)) for photo in photos]
        rows = [
            # Draw the probabilities as a fading of the image.
            SheetRow(
                photos[i],
                whole[i],
                [explanation[i] for explanation in columns],
                self.titles[i],
                kept={masks.method: masks.relevance[i]},
            )
            for i in range(len(photos))
        ]
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"step-{trainer.global_step:08d}.png"
        contact_sheet(rows, path)
        for log in trainer.loggers:
            if isinstance(log, TensorBoardLogger):
                with Image.open(path) as picture:
                    log.experiment.add_image(
                        "masks", np.asarray(picture.convert("RGB")), trainer.global_step, dataformats="HWC"
                    )
            elif isinstance(log, WandbLogger):
                log.log_image("masks", [str(path)], step=trainer.global_step)

    def _read_images(self, trainer: lightning.Trainer) -> Images | None:
        """Return the images; on the first call, read them and explain them by the reference methods."""
        if self.images is None:
            dataset = trainer.datamodule.val_images  # type: ignore[attr-defined]
            if isinstance(dataset, LabeledImages):
                spread = dataset.subsample(self.config.count)
                samples = [spread[i] for i in range(len(spread))]
            else:
                samples = list(islice(dataset, self.config.count))
            batch = collate(samples)
            if not batch.paths:
                return None
            self.images = batch.images.to(self.vit.device, self.vit.dtype)
            self.titles = ["/".join(Path(path).parts[-2:]) for path in batch.paths]
            self.references = list(self._explain_by_references(self.images))
        return self.images

    def _explain_by_references(self, images: Images) -> Iterator[Explanation]:
        for name in REFERENCE_METHODS:
            if EXPLAINERS[name].refusal(self.vit) is None:
                try:
                    yield make_explainer(name, self.vit).explain(images)
                except UnsupportedModelError as error:  # Training continues without this column.
                    logger.warning("drawing masks without %s: %s", name, error)


def _as_photo(image: Any) -> Image.Image:
    """Convert pixels in [0, 1] with one or three channels to a photo."""
    pixels = (image.clamp(0, 1) * 255).round().byte().permute(1, 2, 0).numpy()
    return Image.fromarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels)
