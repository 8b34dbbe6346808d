"""Task types, splits, caps, simplifications and prompts: all that needs no Java."""

import json

import pytest

from eef_jax.envs.scienceworld import prompts, simplify, splits, task_types
from eef_jax.envs.scienceworld.gold import shorten_with_teleports
from eef_jax.errors import ConfigError, DataError

PLANT = task_types.find_task_type("find-plant")


def test_the_table_adds_up_to_the_packages_numbers():
    kinds = task_types.TASK_TYPES.values()
    sizes = {s: sum(len(k.variations(s)) for k in kinds) for s in splits.SPLITS}
    assert sizes == {"train": 3592, "dev": 1796, "test": 1819}
    assert (len(kinds), sum(k.num_variations for k in kinds)) == (30, 7207)
    assert sum(k.eto_cap > 0 for k in kinds) == 24


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("find-plant", "find-plant"),
        ("4-3", "find-plant"),
        ("task-3-find-plant", "find-plant"),
        ("task-2a-test-conductivity", "test-conductivity"),
        ("task-6-lifespan-(longest-lived)", "lifespan-longest-lived"),
        ("task-a-mendellian-genetics-(known-plant)", "mendelian-genetics-known-plant"),
    ],
)
def test_old_names_are_known(name, found):
    assert task_types.find_task_type(name).name == found


def test_an_unknown_name_lists_the_near_ones():
    with pytest.raises(DataError, match="'find-plants': did you mean find-plant"):
        task_types.find_task_type("find-plants")


def test_task_types_are_chosen_by_name_number_and_pattern():
    names = [kind.name for kind in splits.select_task_types("lifespan-*, 3-1,find-plant")]
    assert names[:2] == ["power-component", "find-plant"] and len(names) == 5
    assert [len(splits.select_task_types(t)) for t in ("all", "eto", "agentgym")] == [30, 24, 23]
    with pytest.raises(ConfigError, match="'find-plantt' is not a task type; did you mean"):
        splits.select_task_types("find-plantt")


def test_the_first_tasks_of_a_split_are_spread_over_the_types():
    games = splits.official_split(splits.select_task_types("3-1,4-3,7-1"), "dev")
    assert [(kind.number, n) for kind, n in games[:4]] == [
        ("3-1", 10),
        ("4-3", 150),
        ("7-1", 62),
        ("3-1", 11),
    ]
    assert len(games) == 5 + 75 + 31


def write(path, value):
    path.write_text(json.dumps(value))
    return str(path)


def test_index_files_and_their_overlap(tmp_path):
    train = [["task-3-find-plant", 3], ["boil", 0], ["task-1-boil", 0]]
    path = write(tmp_path / "train.json", train)
    games = splits.read_variations(path)
    assert games == [(PLANT, 3), (task_types.find_task_type("boil"), 0)]
    assert splits.shared_variations({"train": games, "dev": [(PLANT, 3)], "test": []}) == {
        "train, dev": 1
    }


def test_agentgyms_numbers_and_item_ids(tmp_path):
    numbered = splits.agentgym_games()
    assert len(numbered) == 4639
    assert [(kind.name, n) for kind, n in (numbered[0], numbered[30])] == [("boil", 0), ("melt", 0)]
    path = write(tmp_path / "x.json", [30, {"item_id": "sciworld_31"}, "sciworld_30", 4638])
    games = splits.read_variations(path)
    assert games == [numbered[30], numbered[31], numbered[4638]]


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([4639], "entry 0 is game 4639 of AgentGym's, which are 0 to 4638"),
        ([True], "entry 0 is True"),
        ([{"item_id": "sciworld"}], "entry 0 is {'item_id'"),
        ({"boil": 0}, "holds a JSON dict"),
        ([["boil", 0, 1]], r"entry 0 is \['boil', 0, 1\]"),
        ([["boil", "0"]], "entry 0"),
        ([["boil", 0], ["find-plant", 300]], "entry 1 is variation 300 of find-plant"),
        ([["boill", 0]], "entry 0: ScienceWorld has no task 'boill'"),
    ],
)
def test_damaged_index_files_are_named(tmp_path, rows, complaint):
    with pytest.raises(DataError, match=complaint):
        splits.read_variations(write(tmp_path / "x.json", rows))


def test_caps_of_others_and_ones_own(tmp_path):
    assert splits.step_caps("eto", 0)["find-plant"] == 15
    assert splits.step_caps("eto", 0)["mendelian-genetics-known-plant"] == splits.DEFAULT_CAP
    assert set(splits.step_caps("agentgym", 0).values()) == {30}
    assert set(splits.step_caps("eto", 7).values()) == {7}
    mine = splits.step_caps(write(tmp_path / "caps.json", {"task-3-find-plant": 9}), 0)
    assert (mine["find-plant"], mine["boil"]) == (9, 100)
    with pytest.raises(ConfigError, match="did you mean eto"):
        splits.step_caps("etoo", 0)
    with pytest.raises(DataError, match="the cap of 'boil' is 0"):
        splits.step_caps(write(tmp_path / "bad.json", {"boil": 0}), 0)


def test_simplifications():
    labels = simplify.parse_labels("eto")
    assert "openContainers" in simplify.simulator_string(labels, PLANT)
    assert simplify.simulator_string(labels, PLANT).endswith("noElectricalAction")
    assert "Electrical" not in simplify.simulator_string(
        labels, task_types.find_task_type("power-component")
    )
    assert simplify.simulator_string(simplify.parse_labels("none"), PLANT) == ""
    assert [simplify.can_teleport(simplify.parse_labels(t)) for t in ("eto", "easy", "none")] == [
        True,
        True,
        False,
    ]
    for wrong in ("easy,openContainers", "openDoor"):
        with pytest.raises(ConfigError, match="is unknown"):
            simplify.parse_labels(wrong)


@pytest.mark.parametrize("name", prompts.PRESETS)
def test_a_preset_reads_what_it_writes(name):
    preset = prompts.PRESETS[name]
    assert preset.parse(preset.render("focus on adult dove")) == "focus on adult dove"
    assert preset.parse(" \n ") is None


def test_prompts_of_others_are_read_as_they_are_written():
    react, agentgym = prompts.PRESETS["react"], prompts.PRESETS["agentgym"]
    assert react.parse("Thought: go\nAction: go to hallway\n") == "go to hallway"
    assert agentgym.parse("Thought:\ngo\n\nAction:\ngo to hallway") == "go to hallway"
    assert react.parse("I go to the hallway") is None
    assert react.opening == "{task}"


def test_messages_of_a_file(tmp_path):
    said = [{"role": "user", "content": "Do science."}, {"role": "assistant", "content": "OK"}]
    preset = prompts.find("react", write(tmp_path / "m.json", said))
    assert [m.content for m in preset.messages] == ["Do science.", "OK"]
    with pytest.raises(DataError, match="end with the assistant's"):
        prompts.find("react", write(tmp_path / "n.json", said[:1]))
    with pytest.raises(DataError, match="not a JSON list"):
        prompts.find("react", str(tmp_path / "none.json"))
    with pytest.raises(ConfigError, match="did you mean react"):
        prompts.find("reakt")


def test_a_gold_path_is_shortened_by_teleports():
    path = (
        "open door to hallway;go to hallway;open door to outside;go to outside;look around;"
        "focus on dove;go to kitchen;move dove to box"
    ).split(";")
    short = ["teleport to outside", "focus on dove", "teleport to kitchen", "move dove to box"]
    assert shorten_with_teleports(path, "find-animal") == short
    assert shorten_with_teleports(path, "identify-life-stages-1") == path
