"""`python -m eef_jax.config`: print docs/config.md."""

from eef_jax.config import reference
from eef_jax.untrusted import show


def run() -> None:
    """Run the command."""
    show(reference.markdown().removesuffix("\n"))


if __name__ == "__main__":
    run()
