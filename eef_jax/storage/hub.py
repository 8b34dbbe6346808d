"""Models on the Hugging Face hub: the commit that a name means, and a local copy of its files.

Copies are in the hub's own cache (`HF_HOME`), which other programs use as well. Each machine has
its own.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

from eef_jax.errors import DataError

# ORG/NAME[@REVISION]: of a branch, a tag, a pull request (refs/pr/1) or a commit.
_NAME = re.compile(r"(?P<id>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[^@\s]+))?")
_COMMIT = re.compile(r"[0-9a-f]{40}")

# Of a repository's top folder: what is read of a model. Weights in other forms, which many
# repositories have as well, stay where they are; so does what is in subfolders.
_DESCRIPTION = (
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "chat_template.*", "vocab.*", "merges.txt"),
    *("*.model", "model.safetensors.index.json"),
)
_WEIGHTS = "model*.safetensors"
_SUBFOLDERS = "*/*"
_OTHER_WEIGHTS = (".safetensors", ".bin", ".pth", ".pt", ".gguf", ".h5", ".msgpack", ".onnx")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Repository:
    """A model's repository.

    Attributes:
        id: its name, `org/name`.
        revision: branch, tag or commit; "" for the main branch.
    """

    id: str
    revision: str = ""

    def __str__(self) -> str:
        return f"{self.id}@{self.revision}" if self.revision else self.id

    @property
    def download(self) -> str:
        """The command that downloads all of it."""
        return f"hf download {self.id}" + f" --revision {self.revision}" * bool(self.revision)

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a commit's whole hash, which always means the same files."""
        return _COMMIT.fullmatch(self.revision) is not None


def parse(text: str) -> Repository | None:
    """The repository that a text names, `org/name[@revision]`; None if it cannot be such a name."""
    found = _NAME.fullmatch(text)
    return Repository(id=found["id"], revision=found["revision"] or "") if found else None


def pinned(repository: Repository) -> Repository:
    """The repository at the commit that its revision means now.

    Without a network, it is the commit of which the cache has a copy.

    Raises:
        DataError: there is no such repository or revision, it may not be read, or neither the hub
            nor the cache knows it.
    """
    if repository.is_pinned:
        return repository
    from huggingface_hub import HfApi

    with _explained(repository):
        found = HfApi().resolve_revision(repository.id, revision=repository.revision or None)
    return dataclasses.replace(repository, revision=found.resolved)


def download(repository: Repository, *, weights: bool = True) -> Path:
    """A local folder with a repository's files; what the cache lacks is downloaded.

    Args:
        repository: the repository.
        weights: whether the safetensors are needed, too, and not config and tokenizer alone.

    Raises:
        DataError: as `pinned`; or files are needed that can neither be downloaded nor are in the
            cache; or it holds no safetensors.
    """
    from huggingface_hub import snapshot_download

    repository = pinned(repository)
    with _explained(repository):
        folder = Path(
            snapshot_download(
                repository.id,
                revision=repository.revision,
                allow_patterns=[*_DESCRIPTION, *([_WEIGHTS] if weights else [])],
                ignore_patterns=[_SUBFOLDERS],
            )
        )
    if weights and not any(folder.glob(_WEIGHTS)):
        raise DataError(_without_safetensors(repository))
    return folder


def cached(repository: Repository, name: str) -> Path | None:
    """A repository's file in this machine's cache, if it is there; nothing is downloaded."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository.id, name, revision=repository.revision or None)
    return Path(found) if isinstance(found, str) else None


def _without_safetensors(repository: Repository) -> str:
    from huggingface_hub import HfApi

    with _explained(repository):
        names = HfApi().list_repo_files(repository.id, revision=repository.revision)
    others = [name for name in names if name.endswith(_OTHER_WEIGHTS)]
    if any(name.startswith("adapter_model") for name in others):
        return (
            f"{repository} on the Hugging Face hub is an adapter: name its base as model.path, and "
            f"as model.adapter the folder that `{repository.download}` prints"
        )
    return (
        f"{repository} on the Hugging Face hub has no {_WEIGHTS}; its weights are "
        f"{', '.join(others[:3]) or 'missing'}: take a repository or revision with safetensors, or "
        "convert it with transformers (from_pretrained, then save_pretrained) and name that folder"
    )


@contextlib.contextmanager
def _explained(repository: Repository) -> Iterator[None]:
    """Errors of the hub's library as one sentence."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise DataError(
            f"{repository.id} is gated: accept its terms on its page of the Hugging Face hub, and "
            "log in on this machine with `hf auth login` or HF_TOKEN"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise DataError(
            f"{repository.id} is neither a folder here nor a model on the Hugging Face hub that "
            "you may read: check the name; a private model needs `hf auth login` or HF_TOKEN"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise DataError(
            f"{repository.id} on the Hugging Face hub has no revision {repository.revision!r}: "
            "name a branch, a tag or the whole hash of a commit"
        ) from error
    except (
        errors.RevisionResolutionError,
        errors.LocalEntryNotFoundError,
        errors.OfflineModeIsEnabled,
    ) as error:
        raise DataError(
            f"{repository} is neither a folder here nor complete in this machine's cache of the "
            f"Hugging Face hub, which cannot be reached ({_cause(error)}): run "
            f"`{repository.download}` on this machine while it has a network, or name a folder"
        ) from error
    except Exception as error:  # of the network, the disk, the server: it raises many kinds
        raise DataError(
            f"{repository} cannot be had from the Hugging Face hub: {_first_line(error)}; try "
            "again, or name a folder"
        ) from error


def _cause(error: BaseException) -> str:
    """Why the hub was not reached."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    inner = error.__cause__ or error
    if isinstance(inner, OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set"
    return _first_line(inner)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
