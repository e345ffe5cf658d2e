"""Fetch weight files from the Hugging Face hub."""

from pathlib import Path

from vitrail.core.errors import UnknownNameError


def download(name: str, source: str) -> Path:
    """Fetch the file of weights of a hub repository, given as owner/name or owner/name/file.

    Raises:
        UnknownNameError: There is no such repository or file, or it holds several files of weights.
    """
    from huggingface_hub import hf_hub_download, list_repo_files  # noqa: PLC0415 (heavy, and needed for downloads only)

    owner, _, rest = name.partition("/")
    repository, _, file = rest.partition("/")
    if not owner or not repository:
        raise UnknownNameError(f"no such file: {name!r}; expected a file, or a hub repository as owner/name or owner/name/file")
    repository = f"{owner}/{repository}"
    try:
        if not file:
            weights = [
                entry for entry in list_repo_files(repository) if entry.endswith((".safetensors", ".pth", ".pt", ".bin"))
            ]
            if len(weights) != 1:
                choices = ", ".join(f"{source}:{repository}/{name}" for name in weights)
                raise UnknownNameError(f"expected one file of weights in {repository}, found {len(weights)}; choose: {choices}")
            file = weights[0]
        return Path(hf_hub_download(repository, file))
    except UnknownNameError:
        raise
    except Exception as error:  # The hub's client raises its own, requests' and OS errors.
        raise UnknownNameError(
            f"cannot fetch {name!r} from the Hugging Face hub: {error}; check the name and the connection"
        ) from error
