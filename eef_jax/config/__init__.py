"""The config of a run: declared once, read from a file and flags, validated at the start.

`sections` holds the fields and their defaults, `fields` how one is declared and checked, `source`
runs a config by its name or file, `reading` turns values, flags and stored JSON into a `Config`,
`numerics` keeps what a run has chosen, `plugin` adds the sections of environments, experts and
methods, `reference` says it all in words.
"""

from eef_jax.config.fields import field as field
from eef_jax.config.fields import section as section
from eef_jax.config.plugin import make as make
from eef_jax.config.reading import Override as Override
from eef_jax.config.reading import load as load
from eef_jax.config.reading import may_differ as may_differ
from eef_jax.config.reading import new as new
from eef_jax.config.reading import of_kind as of_kind
from eef_jax.config.reading import override as override
from eef_jax.config.reading import plain as plain
from eef_jax.config.reading import read as read
from eef_jax.config.reading import switched as switched
from eef_jax.config.reading import walk as walk
from eef_jax.config.sections import Config as Config
