"""`python -m eef_jax.config`: print docs/config.md."""

from eef_jax.config import reference

if __name__ == "__main__":
    print(reference.markdown(), end="")
