"""What the report says first: data lost to length, too few optimizer steps."""

from eef_jax import report
from eef_jax.report.run import read
from eef_jax.report.warnings import warnings
from tests import toyrun


def set_counts(work, stage, **counts):
    """Change the counts of a finished stage."""
    changed = work.stage(stage)
    made = changed.manifest()
    changed.commit(made["counts"] | counts, made["provenance"])


def test_a_run_with_few_steps_is_told_so(tmp_path):
    work = toyrun.make(tmp_path)
    found = warnings(read(work))
    assert found[0].startswith("round_0/tune: 12 optimizer steps, fewer than 30")
    assert len(found) == 3


def test_a_run_that_lost_nothing_has_no_warnings(tmp_path):
    work = toyrun.make(tmp_path)
    for number in range(3):
        set_counts(work, f"round_{number}/tune", steps=30)
    assert warnings(read(work)) == []
    report.write(work)
    assert "## Warnings" not in (tmp_path / report.FILE).read_text()


def test_what_length_cost_is_shown_with_its_share(tmp_path):
    work = toyrun.make(tmp_path)
    set_counts(work, "round_0/select", too_long=1, selections=4)
    set_counts(work, "round_1/explore", outcomes={"won": 6, "max_context": 2})
    report.write(work)
    text, table = (tmp_path / report.FILE).read_text(), report.table(work)
    assert max(map(len, table.splitlines())) <= 100
    for shown in (text, " ".join(table.split())):
        assert "1 of 4 selected trajectories (25.0 %) are longer than a row of 1,024" in shown
        assert "2 of 8 episodes (25.0 %) ended where the context of" in shown
    assert text.index("## Warnings") < text.index("## Results")
