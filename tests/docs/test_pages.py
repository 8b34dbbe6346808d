"""The pages of the documentation site: links lead to pages, and every module has one."""

import posixpath
import re

import pytest

from docs import pages
from tests.docs.documents import ROOT


@pytest.fixture(scope="module")
def made():
    return pages.pages()


def test_every_link_between_pages_leads_to_one(made):
    found = (*ROOT.glob("docs/**/*.svg"), *ROOT.glob("docs/**/*.png"))
    pictures = {p.relative_to(ROOT / "docs").as_posix() for p in found}
    broken = []
    for path, text in made.items():
        for target in re.findall(r"\]\(([^)\s#]+)", pages.CODE.sub("", text)):
            place = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
            if not re.match(r"\w+:", target) and place not in made and place not in pictures:
                broken.append(f"{path}: {target}")
    assert broken == []


def test_every_page_is_in_the_navigation_once(made):
    navigation = [
        page
        for section in pages.navigation(made)
        for entries in section.values()
        for entry in entries
        for page in entry.values()
    ]
    assert sorted(navigation) == sorted(made)
    assert not any("More" in section for section in pages.navigation(made)), "name it in NAVIGATION"


def test_every_public_module_is_on_an_api_page(made):
    shown = re.findall(r"^::: ([\w.]+)$", "\n".join(made.values()), re.MULTILINE)
    files = [*(ROOT / "eef_jax").rglob("*.py"), *(ROOT / "eef_jax/configs").glob("*.py")]
    modules = {
        ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for file in files
    }
    assert set(shown) == {name for name in modules if "._" not in name}
    assert len(shown) == len(set(shown))


def test_a_link_to_a_file_leads_to_a_page_that_shows_it(made):
    assert "](files/configs/template.py.md)" in made["configs.md"]
    assert "config = config_lib.new(" in made["files/configs/template.py.md"]
    assert "](../log.md#what-the-demos-result-depends-on)" in made["results/embedded.md"]
    assert "](results/embedded.md)" in made["index.md"]
