"""What docs/webshop.md shows is so: its programs run, its prompt is one, its counts are right."""

import importlib.util
import json
import pathlib
import re

import pytest

from eef_jax.envs.webshop.prompt_file import FIELDS, preset
from tests.envs.webshop import golden
from tests.parity import webshop as parity

TEXT = (pathlib.Path(__file__).parents[3] / "docs" / "webshop.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.DOTALL | re.MULTILINE)


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


@pytest.mark.parametrize("program", blocks("python"))
def test_programs_run(program):
    if "gymnasium" in program and importlib.util.find_spec("gymnasium") is None:
        pytest.skip("gymnasium is not installed: pip install -e '.[gym]'")
    exec(program, {})


def test_the_prompt_file_is_one(tmp_path):
    (example,) = (block for block in blocks("json") if '"preset"' in block)
    path = tmp_path / "prompt.json"
    path.write_text(example)
    assert preset(str(path)).max_steps == 15
    assert set(json.loads(example)) == {"preset", *FIELDS}


def test_counts_are_those_of_the_runner():
    lines = []
    parity.report(list(parity.check(golden.FOLDER)), lines.append)
    (shown,) = (block for block in blocks("console") if "$ " in block)
    table = [line for line in lines if not line.startswith("excepted")]
    assert shown.splitlines()[1:] == table


def test_every_exception_is_listed_and_they_are_few():
    rows = [line for line in section("Left out on purpose").splitlines() if line.startswith("| ")]
    assert 0 < len(rows) - 1 <= 10
    for word in ("purchase", "search_results", "item_page", "<r>", "<a>", "<c>"):
        assert any(word in row for row in rows), word
    assert len(parity.EXCEPTIONS) == 6  # as the section says
