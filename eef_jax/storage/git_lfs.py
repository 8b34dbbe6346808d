"""Pointers of git-lfs: the short texts that a clone has in place of large files not yet fetched."""

from pathlib import Path

from etils import epath

# The first line of such a text.
_HEAD = b"version https://git-lfs.github.com/spec/"
HEAD_BYTES = len(_HEAD)


def is_pointer(head: bytes) -> bool:
    """Whether a file that begins so is a pointer; `HEAD_BYTES` of it are enough."""
    return head.startswith(_HEAD)


def explained(file: epath.Path | Path) -> str:
    """Say what to do about a pointer."""
    return (
        f"{file} is a git-lfs pointer, a text that stands for the file: fetch the files with "
        "`git lfs install && git lfs pull` in the clone, or download the folder with "
        "`hf download`"
    )
