"""What vitrail knows of a library of networks, as one object per library."""

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

from torch import nn

from vitrail.adapters.build_spec import BuildSpec, ModelSpec
from vitrail.adapters.classifier import Classifier
from vitrail.adapters.fit_weights import TrainedWeights, trained_weights, transfer_to_same
from vitrail.adapters.preprocessing import Preprocessing
from vitrail.adapters.training_settings import TrainingSettings
from vitrail.core.errors import InvalidInputError, UnsupportedModelError
from vitrail.models.load_report import LoadReport


class Library(ABC):
    """Abstract: sees, loads, builds and rebuilds the networks of one library.

    Class names, part names and options of a library appear in its own folder and nowhere else. A method that a function of that folder
    implements is that function, as a static method.
    """

    title: ClassVar[str]
    """Name in messages."""
    plain: ClassVar[bool] = True
    """Whether networks that `adapt` refuses are classifiers all the same, to be explained from outside."""

    @abstractmethod
    def adapt(
        self, module: nn.Module, name: str, class_names: tuple[str, ...], preprocessing: Preprocessing | None
    ) -> Classifier:
        """View a network of this library as a Vision Transformer (or as an INTR).

        Raises:
            UnsupportedModelError: It is none that vitrail can look into, with the reason.
        """

    def preprocessing(self, module: nn.Module) -> Preprocessing | None:
        """Return a network's own preprocessing, whatever its architecture; None if unknown."""
        return None

    def class_names(self, module: nn.Module) -> tuple[str, ...]:
        """Return the class names that a network carries; empty if it has none."""
        return ()

    def list_names(self) -> Collection[str]:
        """List the names that `load` takes, where the library lists them; for hints only."""
        return ()

    @abstractmethod
    def load(self, name: str, **options: Any) -> Classifier:
        """Load a trained network by name; see `vitrail.load`."""

    def build(self, name: str, spec: ModelSpec) -> Classifier:
        """Build a network for training, or one that gives an embedding, if it has no classes; errors as for `vitrail.build`."""
        raise InvalidInputError(f"vitrail builds no networks of {self.title} for training; expected timm, hf or torchvision")

    def initialize_mimetically(self, module: nn.Module) -> None:
        """Give an untrained network the attention weights of arXiv:2305.09828, for training on few images.

        Raises:
            InvalidInputError: The network is not one of the Vision Transformers that this is made for.
        """
        raise InvalidInputError(
            f"expected a timm ViT for model.initialization: mimetic, got {type(module).__name__}; leave model.initialization out"
        )

    def rebuild(self, config: Mapping[str, Any]) -> nn.Module:
        """Build the network that a vitrail file describes, without its weights: from names and numbers, never from code.

        Raises:
            CheckpointError: The description does not name a network of the library and options of its shape.
        """
        raise UnsupportedModelError(f"vitrail files cannot describe networks of {self.title}")

    def describe(self, module: nn.Module) -> BuildSpec:
        """Describe a network that vitrail did not build, for a vitrail file.

        Raises:
            UnsupportedModelError: The network does not tell how it was built.
        """
        raise UnsupportedModelError(
            f"expected a network that vitrail built, or read from its own files, got {type(module).__name__}; save it by the "
            "library that it comes from, or build it by vitrail.adapters.build"
        )

    def read_weights(self, name: str, **options: Any) -> TrainedWeights:
        """Fetch or read trained weights by name, of any architecture of the library."""
        return trained_weights(self.load(name, **options).module)

    def saved_names(self, module: nn.Module) -> Mapping[str, str]:
        """Return the names of those weights that the library's own files call differently, by their names in files."""
        return {}

    def read_training(self, extra: Mapping[str, Any]) -> TrainingSettings | None:
        """Read which network the library's training script names in a checkpoint, beside the weights; None if it names none."""
        return None

    def transfer(
        self, classifier: Classifier, weights: TrainedWeights, source: str, *, keep_head: bool, query_noise: float
    ) -> LoadReport:
        """Copy trained weights into a network; see `vitrail.adapters.transfer_weights`."""
        return transfer_to_same(classifier.module, weights, source, keep_head=keep_head)
