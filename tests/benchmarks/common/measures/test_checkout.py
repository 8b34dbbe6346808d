"""Files are read as prose and code, each at its place."""

from tests.benchmarks.common.measures import trees

SOURCE = '''\
"""Doc."""
x = "text"  # why

# alone
y = """a

b"""
'''


def test_prose_and_code_keep_their_places(tmp_path):
    made = trees.make(tmp_path, {"eef_jax/a.py": SOURCE})
    (module,) = made.modules
    document = module.document
    assert len(document.prose) == len(document.code) == len(document.text) == len(SOURCE)
    assert document.prose.split() == ['"""Doc."""', "#", "why", "#", "alone"]
    assert "why" not in document.code and '"text"' in document.code
    assert module.code_lines == {2, 5, 7} and module.comment_lines == {2, 4}
    assert (module.name, module.folder) == ("eef_jax.a", "eef_jax")


def test_what_does_not_parse_is_named_and_left_out(tmp_path, capsys):
    made = trees.make(tmp_path, {"eef_jax/bad.py": "def", "eef_jax/good.py": "x = 1"})
    assert [module.name for module in made.modules] == ["eef_jax.good"]
    assert "left out: eef_jax/bad.py" in capsys.readouterr().err


def test_hidden_folders_and_runs_are_not_read(tmp_path):
    for folder in (".venv", "runs", "eef_jax"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("x = 1")
    assert [module.name for module in trees.make(tmp_path).modules] == ["eef_jax.a"]
