"""What the tests of peers' runners share: an engine that is easily told, and what it would play."""

import json

from benchmarks.engine.workload import Workload, play_by_turn


def answer(ids, count):
    """Ids that depend on all of a context and on its order."""
    seed = sum(place * token for place, token in enumerate(ids, 1))
    return [100 + (seed + number) % 900 for number in range(count)]


def expected(experts):
    """Outputs of an engine that gives `answer`, as a runner prints them."""
    work = Workload(experts=experts)
    contexts = {key: work.start(*key) for key in work.episodes()}
    outputs = play_by_turn(
        contexts, work, lambda given: [answer(ids, work.action) for ids in given]
    )
    return [[*key, outputs[key]] for key in sorted(outputs)]


def printed(capsys):
    """The outputs that a runner has printed; it must have said how long they took."""
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["seconds"] > 0
    return result["outputs"]
