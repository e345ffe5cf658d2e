"""A tiny tokenizer of words for Hugging Face's models of images and texts."""

from typing import Any

from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

TEXTS = ["a cat", "a photo of the dog", "bird"]

WORDS = ["[unk]", "[pad]", "[start]", "[end]", "a", "photo", "of", "the", "cat", "dog", "bird"]


def tokenizer() -> Any:
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[unk]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(
        single="[start] $A [end]", special_tokens=[("[start]", 2), ("[end]", 3)]
    )
    special = {"unk_token": "[unk]", "pad_token": "[pad]", "bos_token": "[start]", "eos_token": "[end]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)
