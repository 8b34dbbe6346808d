"""Word lists that define behaviour: base colours of the reward and stop words of the search.

They are data (`constants.json`), not judgement: the order of the colours decides which one a phrase
such as `dark blue` counts as. Credit for both lists is in NOTICE.
"""

import importlib.resources
import json

_LISTS = json.loads(
    importlib.resources.files(__package__).joinpath("constants.json").read_text(encoding="utf-8")
)

BASE_COLORS: tuple[str, ...] = tuple(_LISTS["base_colors"])
STOP_WORDS: frozenset[str] = frozenset(_LISTS["stop_words"])
