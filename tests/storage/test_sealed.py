"""JSON files with a checksum: any change is noticed."""

import json
import tempfile

import pytest
from etils import epath
from hypothesis import strategies as st

from eef_jax.errors import DataError
from eef_jax.storage import sealed
from tests.properties import JSON, TEXTS, holds

VALUE = {"text": "ä\n", "number": 0.1, "list": [1, None], "nested": {"a": True}}


def test_values_come_back(tmp_path):
    sealed.write(tmp_path / "a.json", VALUE)
    assert sealed.read(tmp_path / "a.json", remedy="") == VALUE


def test_every_flipped_byte_is_noticed(tmp_path):
    path = tmp_path / "a.json"
    sealed.write(path, VALUE)
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        with pytest.raises(DataError, match=r"a\.json .*mend it"):
            sealed.read(path, remedy="mend it")


@pytest.mark.parametrize("content", ["", "[]", json.dumps(VALUE), "\ufeff{}"])
def test_what_another_writer_wrote_is_refused(tmp_path, content):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match="mend it"):
        sealed.read(tmp_path / "a.json", remedy="mend it")


@holds(st.dictionaries(TEXTS.filter(lambda name: name != sealed.CHECKSUM), JSON), st.data())
def test_any_values_come_back_and_any_changed_byte_is_noticed(value, data):
    with tempfile.TemporaryDirectory() as folder:
        path = epath.Path(folder) / "x.json"
        sealed.write(path, value)
        assert sealed.read(path, remedy="") == value
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(content))
        with pytest.raises(DataError):
            sealed.read(path, remedy="")
