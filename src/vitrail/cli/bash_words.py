"""Put words together that bash splits at colons and equals signs before it asks for completions, as in vitrail:hit-birds."""

import os

TYPED = "_VITRAIL_TYPED"
"""Environment variable with what bash does not replace by a completion: the beginning of the word, up to its last colon."""

BREAKS = (":", "=")


def join_bash_words() -> None:
    """Put the words of the command line together, where it is one that bash wants to be completed."""
    if os.environ.get("_VITRAIL_COMPLETE") != "complete_bash" or "\n" not in os.environ.get("COMP_WORDS", ""):
        return
    words, current = os.environ["COMP_WORDS"].split("\n"), int(os.environ.get("COMP_CWORD", 0))
    words += [""] * (current + 1 - len(words))
    joined, continues = list[str](), False
    for index, word in enumerate(words[: current + 1]):
        if joined and (continues or word in BREAKS):
            if index == current:
                start = joined[-1] + (word if word in BREAKS else "")
                value = start.partition("=")[2] if start.startswith("--") else start
                os.environ[TYPED] = value if value.endswith(":") else ""
            joined[-1] += word
        else:
            joined.append(word)
        continues = word in BREAKS
    os.environ.update(COMP_WORDS="\n".join(joined), COMP_CWORD=str(len(joined) - 1))


def strip_typed(names: list[str]) -> list[str]:
    """Return names without the beginning that bash does not replace."""
    return [name.removeprefix(os.environ.get(TYPED, "")) for name in names]
