"""Nouns are made with any tagger of spaCy's interface; without spaCy the error names the extra."""

import json
import sys
import types

import pytest

from eef_jax.envs.webshop import nouns
from eef_jax.errors import ConfigError, DataError


class Document(list):
    def __init__(self, text):
        words = [w.rstrip("!") for w in text.split()]
        tags = {"Shoe": "NOUN", "Acme": "PROPN", "Red": "ADJ"}
        super().__init__(types.SimpleNamespace(text=w, pos_=tags.get(w, "X")) for w in words)
        self.text = text


def tagger(texts):
    return map(Document, texts)


def test_nouns_are_lower_case_and_in_order():
    assert list(nouns.tag_titles(["Red Acme Shoe Shoe!", ""], tagger)) == [
        ("Red Acme Shoe Shoe!", ["acme", "shoe", "shoe"]),
        ("", []),
    ]


def test_titles_are_told_once(tmp_path):
    path = tmp_path / "products.json"
    path.write_text(json.dumps([{"name": "a"}, {"name": "b"}, {"name": "a"}]))
    assert list(nouns.iter_titles(str(path))) == ["a", "b"]
    path.write_text(json.dumps([{"name": "a"}, {"asin": "b"}]))
    with pytest.raises(DataError, match=r"record 1 \(line 1\) has no name"):
        list(nouns.iter_titles(str(path)))


def test_a_missing_spacy_or_model_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(ConfigError, match=r"pip install -e '.\[webshop-import\]'"):
        nouns.load_tagger("en_core_web_sm")

    def load(name, exclude):
        raise OSError(name)

    monkeypatch.setitem(sys.modules, "spacy", types.SimpleNamespace(load=load))
    with pytest.raises(ConfigError, match="spacy download en_core_web_sm"):
        nouns.load_tagger("en_core_web_sm")


def test_file_is_what_an_import_reads(tmp_path, monkeypatch, capsys):
    products, out = tmp_path / "products.json", tmp_path / "nouns.json"
    products.write_text(json.dumps([{"name": "Red Shoe"}, {"name": "Acme é"}]))
    monkeypatch.setattr(nouns, "load_tagger", lambda model: tagger)
    nouns.write_title_nouns(str(products), str(out), model="any")
    assert json.loads(out.read_text()) == {"Red Shoe": ["shoe"], "Acme é": ["acme"]}
