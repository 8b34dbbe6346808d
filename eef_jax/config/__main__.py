"""`python -m eef_jax.config`: print docs/config.md."""

from eef_jax.config import reference


def run() -> None:
    """Run the command."""
    print(reference.markdown(), end="")


if __name__ == "__main__":
    run()
