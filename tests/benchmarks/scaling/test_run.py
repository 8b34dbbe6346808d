"""The tables of the stored results."""

import json

from benchmarks.scaling import run


def test_every_row_has_a_name_of_its_own_and_a_preset():
    from eef_jax.configs import webshop

    assert len({row.name for row in run.ROWS}) == len(run.ROWS)
    assert all(webshop.get_config(row.preset) for row in run.ROWS)


def test_stored_results_become_two_tables():
    results = run.stored()
    assert results
    training, sampling = run.training(results), run.sampling(results)
    kinds = [result["program"]["name"] for result in results]
    bodies = [[line for line in table[2:] if line] for table in (training, sampling)]
    assert len(bodies[0]) == kinds.count("train") > 0
    assert len(bodies[1]) == len(kinds) - kinds.count("train") > 0
    assert "llama3_8b" in training[2] and " %) |" in sampling[2]


def test_missing_results_are_left_out(tmp_path, monkeypatch):
    row, stored = run.ROWS[0], run.stored()[0]
    monkeypatch.setattr(run, "RESULTS", tmp_path)
    assert run.stored() == []
    (tmp_path / f"{row.name}.json").write_text(json.dumps(stored))
    assert run.stored() == [stored]
