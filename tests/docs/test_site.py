"""The built site has every public name; `make docs` builds it and sets EEF_SITE."""

import ast
import os
import zlib
from pathlib import Path

import pytest

from docs import pages
from tests.docs.documents import ROOT


@pytest.fixture(scope="module")
def site():
    if "EEF_SITE" not in os.environ:
        pytest.skip("EEF_SITE names no built site: run make docs")
    return Path(os.environ["EEF_SITE"])


def public_names(module):
    """Classes and functions of a module, methods of the classes, and what it assigns a name to."""
    path = ROOT / module.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            yield f"{module}.{node.name}"
            methods = (
                m for m in node.body if isinstance(m, ast.FunctionDef | ast.AsyncFunctionDef)
            )
            yield from (f"{module}.{node.name}.{method.name}" for method in methods)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{module}.{node.name}"
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = (
                name.id for one in targets for name in ast.walk(one) if isinstance(name, ast.Name)
            )
            yield from (f"{module}.{name}" for name in names)


def inventory(site):
    """The names that the site has an anchor for (Sphinx's format, as other projects link it)."""
    content = (site / "objects.inv").read_bytes().split(b"\n", 4)[4]
    return {line.split(" ")[0] for line in zlib.decompress(content).decode().splitlines()}


def test_every_public_name_is_on_the_site(site):
    modules = [module for names in pages.packages().values() for module in names]
    names = {name for module in modules for name in public_names(module)}
    public = {name for name in names if not any(part.startswith("_") for part in name.split("."))}
    assert len(public) > 500
    assert sorted(public - inventory(site)) == []


def test_pages_open_from_disk_and_load_nothing_from_elsewhere(site):
    page = (site / "index.html").read_text("utf-8")
    assert "93.7 %" in page and 'href="usage.html"' in page
    loaded = [part.split('"')[0] for part in page.split('src="')[1:]]
    assert [one for one in loaded if one.startswith(("http:", "https:", "//"))] == []
