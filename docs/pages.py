"""Writes the pages of the documentation site: `python docs/pages.py FOLDER` (`make docs` does it).

- Every Markdown page, with links that work on the site: a link to a file outside `docs/` leads to a
  page that shows the file.
- One page for each package of `eef_jax`, with all of its modules' public names.
- The navigation, in `mkdocs.yml` after what the checkout's has.
"""

import json
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "eef_jax"
# Pages outside `docs/`, by their name on the site.
TOP = {
    "README.md": "index.md",
    "WORKSPACE.md": "workspace.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
}
# The order in the navigation; pages that it lacks follow by name.
NAVIGATION = {
    "Start": ("index", "tutorial", "usage", "methods", "report", "configs", "extending"),
    "Results": ("results/embedded", "scienceworld", "engine", "log"),
    "Data and models": ("webshop", "experts", "interchange", "models", "metrics", "config"),
    "Machines": ("scaling", "tpu", "buckets", "reliability"),
    "Project": ("paper", "design", "workspace", "contributing", "changelog"),
}
LANGUAGES = {".py": "python", ".sh": "bash", ".yaml": "yaml", ".json": "json", ".sbatch": "bash"}
LINK = re.compile(r"(?<=\]\()([^)\s#]+)(#[^)\s]*)?(?=\))")
CODE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
COMMENT = re.compile(r"^<!--.*-->\n", re.MULTILINE)  # before a table it would swallow the table


def pages() -> dict[str, str]:
    """Text of every page, by its path on the site."""
    made = {site_path(path): translated(path) for path in markdown()}
    for target in sorted({one for path in markdown() for one in linked_files(path)}):
        made[site_path(target)] = file_page(target)
    for package in packages():
        made[f"api/{package}.md"] = api_page(package)
    return made


def markdown() -> list[str]:
    """The Markdown pages of the checkout, as paths from its root."""
    top = [name for name in TOP if (ROOT / name).exists()]
    return top + sorted(p.relative_to(ROOT).as_posix() for p in ROOT.glob("docs/**/*.md"))


def site_path(path: str) -> str:
    """Where a file of the checkout is shown on the site."""
    if path in TOP:
        return TOP[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"files/{path.removesuffix('.md')}.md"


def targets(path: str) -> Iterator[tuple[re.Match[str], str]]:
    """Links of a page to files of the checkout: the match, and the path from the root."""
    text = (ROOT / path).read_text("utf-8")
    for match in LINK.finditer(CODE.sub(lambda block: " " * len(block[0]), text)):
        if not re.match(r"\w+:", match[1]):
            yield match, posixpath.normpath(posixpath.join(posixpath.dirname(path), match[1]))


def linked_files(path: str) -> Iterator[str]:
    """Files and folders that a page links to and that are not pages or pictures of `docs/`."""
    for _, target in targets(path):
        if target not in TOP and not target.startswith("docs/"):
            yield target


def translated(path: str) -> str:
    """A page's text with its links as the site has them."""
    text, done = (ROOT / path).read_text("utf-8"), 0
    parts = []
    for match, target in targets(path):
        here = posixpath.dirname(site_path(path)) or "."
        parts += [text[done : match.start()], posixpath.relpath(site_path(target), here)]
        done = match.end(1)
    return COMMENT.sub("", "".join([*parts, text[done:]]))


def file_page(path: str) -> str:
    """A page that shows a file, or what is in a folder."""
    source = ROOT / path
    if source.suffix == ".md":
        return translated(path)
    if source.is_dir():
        lines = [f"- `{one.name}`" for one in sorted(source.iterdir()) if one.name[0] not in "._"]
        return f"# `{path}`\n\n" + "\n".join(lines) + "\n"
    text = source.read_text("utf-8")
    return f"# `{path}`\n\n````{LANGUAGES.get(source.suffix, 'text')}\n{text}\n````\n"


def packages() -> dict[str, list[str]]:
    """Public modules by package, the package first; modules right in `eef_jax` are under it."""
    found: dict[str, list[str]] = {}
    # rglob does not follow the link to the configs.
    files = [*PACKAGE.rglob("*.py"), *(PACKAGE / "configs").glob("*.py")]
    for file in sorted(files, key=lambda file: (file.parent, file.name)):
        names = file.relative_to(ROOT).with_suffix("").parts
        if file.name == "__init__.py":
            names = names[:-1]
        if any(name.startswith("_") for name in names):
            continue
        package = ".".join(file.parent.relative_to(ROOT).parts)
        found.setdefault(package, []).append(".".join(names))
    return found


def api_page(package: str) -> str:
    """The public names of a package's modules."""
    modules = "\n\n".join(f"::: {module}" for module in packages()[package])
    return f"# `{package}`\n\n{modules}\n"


def navigation(made: dict[str, str]) -> list[dict[str, list[dict[str, str]]]]:
    """The navigation, as mkdocs reads it."""
    left = {name.removesuffix(".md") for name in made}
    parts: dict[str, list[str]] = {}
    for section, names in NAVIGATION.items():
        parts[section] = [name for name in names if name in left]
        left -= set(names)
    for section, prefix in {"Python API": "api/", "Files": "files/", "More": ""}.items():
        parts[section] = sorted(name for name in left if name.startswith(prefix))
        left -= set(parts[section])
    return [
        {section: [{title(made[f"{name}.md"]): f"{name}.md"} for name in names]}
        for section, names in parts.items()
        if names
    ]


def title(text: str) -> str:
    """A page's first heading."""
    return text.partition("\n")[0].removeprefix("# ").strip("`")


def write(folder: Path) -> None:
    """Write `mkdocs.yml`, and the pages into `pages/`."""
    shutil.rmtree(folder, ignore_errors=True)
    made = pages()
    for path, text in made.items():
        file = folder / "pages" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    for picture in (*ROOT.glob("docs/**/*.svg"), *ROOT.glob("docs/**/*.png")):
        copy = folder / "pages" / picture.relative_to(ROOT / "docs")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, copy)
    settings = (ROOT / "mkdocs.yml").read_text("utf-8")
    nav = json.dumps(navigation(made), indent=2)  # JSON is YAML
    (folder / "mkdocs.yml").write_text(f"{settings}\nnav: {nav}\n", "utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
