"""Reading JSON files: what an error says about the file, and what to do."""

import pytest

from eef_jax.errors import DataError
from eef_jax.storage import files


def test_a_json_file_comes_back(tmp_path):
    files.write_json(tmp_path / "x.json", {"é": [1, None]})
    assert files.read_json(tmp_path / "x.json", remedy="") == {"é": [1, None]}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "is missing; copy it again"),
        (b"{", "is not valid JSON"),
        (b'["\xff"]', "is not valid JSON"),
        (b"{}", "holds a JSON dict, expected a list; copy it again"),
    ],
)
def test_an_unreadable_file_is_named_with_its_remedy(tmp_path, content, complaint):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=complaint) as error:
        files.read_json(path, list, what="goal numbers", remedy="copy it again")
    assert f"goal numbers: {path}" in str(error.value)
    assert str(error.value).endswith("copy it again")
