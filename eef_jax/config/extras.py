"""Which extras of pyproject.toml a config needs: `python -m eef_jax.config.extras --config=...`.

Prints their names with commas, so that a launcher installs what the config asks for. A plug-in
names its own as `EXTRAS`.
"""

from eef_jax import cli, plugins
from eef_jax.config.plugin import FAMILIES
from eef_jax.config.sections import Config
from eef_jax.errors import ConfigError
from eef_jax.untrusted import show


def extras(config: Config) -> list[str]:
    """Names of the extras that a config's plug-ins need, sorted."""
    found: set[str] = set()
    for section, family in FAMILIES.items():
        if name := getattr(config, section).name:
            found.update(getattr(plugins.load(family, name), "EXTRAS", ()))
    return sorted(found)


def main() -> None:
    """Print the extras of the config that the flags name."""
    config = cli.read_config()
    if config is None:
        raise ConfigError("no --config was given")
    show(",".join(extras(config)))


if __name__ == "__main__":
    cli.define_config()
    cli.run(main)
