"""The text towers of Hugging Face's models of images and texts: CLIP, MetaCLIP 2, SigLIP and SigLIP 2."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import AutoTokenizer
from transformers.utils.hub import cached_file

from vitrail.adapters.directions import TextTower
from vitrail.adapters.huggingface.silence import silence_transformers
from vitrail.core.errors import CheckpointError, InvalidInputError, first_line
from vitrail.core.hooks import inspecting

VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model", "sentencepiece.bpe.model")
"""Files that contain the words of a tokenizer."""

logger = logging.getLogger(__name__)


@final
class HuggingFaceText(TextTower):
    """Embeds texts by a model of images and texts, and its tokenizer.

    SigLIP was trained on texts of a fixed number of tokens, so that its tokenizer pads to the longest text that the model takes.

    Args:
        model: A model of transformers with `get_text_features`, such as a CLIPModel.
        tokenizer: The model's tokenizer, as from `AutoTokenizer.from_pretrained`.

    Raises:
        InvalidInputError: The model has no text tower.
    """

    def __init__(self, model: Any, tokenizer: Any) -> None:
        if not has_text_tower(model):
            raise InvalidInputError(
                f"expected a model of images and texts, such as CLIPModel, got {type(model).__name__}, which has no text tower"
            )
        self.module, self._tokenizer = model, tokenizer

    @property
    def _max_tokens(self) -> int:
        return int(self.module.config.text_config.max_position_embeddings)

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "k d"]:
        if not texts:
            raise InvalidInputError("expected at least one text to embed, got none")
        fixed = self.output == "sigmoid"
        # Not truncated: the embedding of a part of a text is another text's.
        padding = {"padding": "max_length", "max_length": self._max_tokens} if fixed else {"padding": True}
        with silence_transformers():  # It warns of texts that are too long, which are refused below.
            tokens = self._tokenizer(list(texts), return_tensors="pt", **padding)
        if (num_tokens := tokens["input_ids"].shape[1]) > self._max_tokens:
            longest = max(texts, key=len)
            raise InvalidInputError(
                f"expected texts of at most {self._max_tokens} tokens, got one of {num_tokens}: {longest[:60]!r}...; shorten it"
            )
        vocabulary, largest = int(self.module.config.text_config.vocab_size), int(tokens["input_ids"].max())
        if largest >= vocabulary:
            raise InvalidInputError(
                f"expected a tokenizer of {vocabulary} tokens, got token {largest} from it; use the tokenizer of the same model"
            )
        device = next(self.module.text_model.parameters()).device
        inputs = {key: tokens[key].to(device) for key in ("input_ids", "attention_mask") if key in tokens}
        with torch.no_grad(), inspecting(self.module.text_model):
            features: Tensor = self.module.get_text_features(**inputs, return_dict=True).pooler_output
        return features


def has_text_tower(model: Any) -> bool:
    """Return whether a model embeds texts as well as images."""
    return hasattr(model, "get_text_features") and hasattr(model, "logit_scale")


def read_text_tower(name: str, model: Any, options: Mapping[str, Any]) -> tuple[HuggingFaceText | None, str]:
    """Return a model's text tower with the tokenizer from its folder, or None, and why there is none.

    Args:
        name: A folder or hub repository.
        model: The loaded model.
        options: Where to fetch the tokenizer, e.g. `revision`.
    """
    if not has_text_tower(model):
        return None, f"{type(model).__name__} has no text tower"
    try:
        return HuggingFaceText(model, _read_tokenizer(name, options)), ""
    except CheckpointError as error:
        logger.info("%s", error)
        return None, str(error)


def _read_tokenizer(name: str, options: Mapping[str, Any]) -> Any:
    try:
        # transformers makes a tokenizer without words from none of these.
        found = [cached_file(name, file, _raise_exceptions_for_missing_entries=False, **options) for file in VOCABULARIES]
        if not any(found):
            raise FileNotFoundError(f"none of the files {', '.join(VOCABULARIES)} exists")
        return AutoTokenizer.from_pretrained(name, trust_remote_code=False, **options)
    except Exception as error:  # Missing and damaged files raise many kinds of errors.
        raise CheckpointError(
            f"cannot load the tokenizer of {name}, without which texts cannot be embedded: {first_line(error)}; put its files beside the "
            "weights"
        ) from error
