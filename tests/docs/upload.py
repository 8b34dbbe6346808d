"""Copies a local folder into a bucket, as `gcloud storage cp --recursive` does."""

import sys

from etils import epath


def main() -> None:
    """Copy the files of the first argument's folder to the second."""
    source, target = (epath.Path(word) for word in sys.argv[1:])
    for file in source.iterdir():
        (target / file.name).write_bytes(file.read_bytes())


if __name__ == "__main__":
    main()
