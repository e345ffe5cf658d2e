"""open_clip's text towers."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from jaxtyping import Float
from open_clip import SimpleTokenizer, get_tokenizer
from torch import Tensor

from vitrail.adapters.directions import TextTower
from vitrail.core.errors import InvalidInputError
from vitrail.core.hooks import inspecting

VOCABULARY_SIZE = 49408
"""Number of tokens of CLIP's own tokenizer, which comes with open_clip."""


@final
@dataclass(frozen=True, eq=False)
class OpenClipText(TextTower):
    """The text tower of a model of open_clip.

    Attributes:
        module: The whole model.
        model_name: Its name in open_clip, which tells the tokenizer; empty where only the model is known.
    """

    module: Any
    model_name: str = ""

    def encode(self, texts: Sequence[str]) -> Float[Tensor, "k d"]:
        tokenizer = self._make_tokenizer()
        for text in texts:
            self._expect_fitting(tokenizer, text)
        tokens = tokenizer(list(texts)).to(self.module.logit_scale.device)
        with torch.no_grad(), inspecting(self.module):
            return self.module.encode_text(tokens, normalize=False)

    def _make_tokenizer(self) -> Any:
        if self.model_name:
            try:
                return get_tokenizer(self.model_name)
            except Exception as error:  # Hub and file errors have no common base.
                raise InvalidInputError(
                    f"cannot load the tokenizer of open_clip:{self.model_name} ({error}); it is fetched from the Hugging Face hub once: "
                    "check the connection, or compare with reference images or a direction"
                ) from error
        text = getattr(self.module, "text", self.module)  # Older models have no text tower of their own.
        size = getattr(text, "vocab_size", None)
        if size == VOCABULARY_SIZE:
            return SimpleTokenizer(context_length=text.context_length)
        raise InvalidInputError(
            f"expected a model of open_clip with CLIP's own tokenizer of {VOCABULARY_SIZE} tokens, got a {type(self.module).__name__} of "
            f"{size}, whose tokenizer its weights do not tell; load it by name (open_clip:NAME/TAG), or give its embeddings as direction"
        )

    def _expect_fitting(self, tokenizer: Any, text: str) -> None:
        """Refuse a text that the tokenizer would cut."""
        encode = getattr(tokenizer, "encode", None) or getattr(getattr(tokenizer, "tokenizer", None), "encode", None)
        if encode is None:
            return
        special = 2 if isinstance(tokenizer, SimpleTokenizer) else 0  # The others count their own.
        length, limit = len(encode(text)) + special, tokenizer.context_length
        if length > limit:
            raise InvalidInputError(f"expected a text of at most {limit} tokens, got {length}: {text[:60]!r}...; shorten it")
