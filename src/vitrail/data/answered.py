"""Images whose answer lies beside them: photo and answer, both as the network sees them."""

from dataclasses import dataclass

from vitrail.adapters import Preprocessing
from vitrail.data.generating import has_answer, read_answer
from vitrail.data.labelled import LabelledFiles, LabelledImages, Sample, Unreadable
from vitrail.errors import ImageError, InvalidInputError


@dataclass(frozen=True)
class AnsweredFiles(LabelledFiles):
    """Image files of a generated task, each read with its answer; the transform is the model's preprocessing."""

    def __getitem__(self, index: int) -> Sample | Unreadable:
        name = self.name(index)
        try:
            image, answer = self.open(index), read_answer(self.paths[index])
            if answer.shape != (image.height, image.width):
                raise ImageError(
                    f"expected an answer as large as its image, {image.width}x{image.height} pixels, got "
                    f"{answer.shape[1]}x{answer.shape[0]} for {name}"
                )
            preprocessing: Preprocessing = self.transform  # type: ignore[assignment]
            return Sample(preprocessing(image), self.labels[index], name, preprocessing.region(answer))
        except ImageError as error:
            return Unreadable(name, str(error))


def with_answers(images: LabelledImages, preprocessing: Preprocessing) -> LabelledImages:
    """The same images; where answers lie beside them, read with these.

    Args:
        images: Any; answers can lie beside files only.
        preprocessing: Of the model, for images that have answers.

    Raises:
        InvalidInputError: Some have an answer and some have none.
    """
    if not isinstance(images, LabelledFiles):
        return images
    without = [path for path in images.paths if not has_answer(path)]
    if len(without) == len(images):
        return images
    if without:
        raise InvalidInputError(
            f"expected an answer beside every image or beside none, found none for {len(without)} of {len(images)} images, the first "
            f"{without[0]}; write the task anew by `vitrail generate`, or score copies of the images, away from the folder masks"
        )
    return AnsweredFiles(images.paths, images.labels, images.class_names, preprocessing, images.boxes, images.crop_to_box)
