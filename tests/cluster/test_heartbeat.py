"""Who is taken for dead, and who is not."""

from eef_jax.cluster.heartbeat import StaleHeartbeats


def test_silence_is_judged_by_ones_own_clock():
    silence = StaleHeartbeats(10)
    assert silence.find({0: "1", 1: "1"}, 0) is None
    assert [silence.find({0: f"{t}", 1: "1"}, t) for t in range(3, 10, 3)] == [None] * 3
    assert silence.find({0: "12", 1: "1"}, 12) == 1
    # Who stood still itself (a suspended machine) has not listened.
    assert silence.find({0: "13", 1: "1"}, 100) is None
    assert silence.find({0: "14", 1: "2"}, 103) is None
