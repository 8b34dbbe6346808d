"""Made-up rooms read like the simulator's; every answer is in the text before it."""

import random

import pytest
import tokenizers

from pretrain import tokenizer as tokenizer_training
from pretrain.curricula import CURRICULA
from pretrain.scienceworld import exercises, goals, rooms
from pretrain.scienceworld.walks import walk
from pretrain.tokenizer import ASSISTANT, END, USER

# A description by the simulator; the exercises must write rooms in exactly this form.
GREENHOUSE = (
    "This room is called the greenhouse. In it, you see: \n"
    "\tthe agent\n"
    "\ta substance called air\n"
    "\ta adult bee\n"
    "\ta flower pot 2 (containing a pea plant in the reproducing stage with a tall height, soil)\n"
    "\ta jug (containing nothing)\n"
    "You also see:\n"
    "\tA door to the hallway (that is open)\n"
    "\tA door to the outside (that is open)"
)


def rngs(count):
    return [random.Random(seed) for seed in range(count)]


def test_a_room_has_the_simulators_wording():
    pea = (
        "a flower pot 2 (containing a pea plant in the reproducing stage with a tall height, soil)"
    )
    jug = "a jug (containing nothing)"
    room = rooms.Room(
        name="greenhouse",
        objects=(
            rooms.RoomObject(name="bee", description="a adult bee", kind="animal", stage="adult"),
            rooms.RoomObject(name="pea plant", description=pea, kind="plant", pot="flower pot 2"),
            rooms.RoomObject(name="jug", description=jug, kind="thing"),
        ),
        doors=("hallway", "outside"),
    )
    assert goals.room_message(room).text == USER + GREENHOUSE + END


def test_auxiliary_labels_say_what_each_line_shows():
    for rng in rngs(50):
        room, goal = rooms.make_room(rng), goals.make_goal(rng)
        for read in (None, goal):
            page = goals.room_message(room, before="x\n", question="which?", goal=read)
            for obj, label in zip(room.objects, page.labels, strict=True):
                assert page.text[: label.index + 1].endswith(obj.description)
                fits = obj.kind in goal.target_kinds
                by_goal = read is not None and goal.target_kinds
                assert label.text == (("yes" if fits else "no") if by_goal else obj.kind)


def test_a_name_and_a_pot_occur_once_in_a_room():
    for rng in rngs(200):
        room = rooms.make_room(rng, max_objects=18)
        names = [o.name for o in room.objects] + [o.pot for o in room.objects if o.pot]
        assert len(set(names)) == len(names)
        assert room.name not in room.doors


def test_questions_are_answered_by_the_room():
    for rng in rngs(300):
        room = rooms.make_room(rng)
        question, answer = exercises.room_question(rng, room)
        text = goals.room_message(room).text
        if answer not in ("none", "yes", "no"):
            named = answer.split(", ") if question.startswith("all") else [answer]
            assert all(word in text for name in named for word in name.split())


def test_a_goals_text_contains_the_answers_about_it():
    for rng in rngs(100):
        goal = goals.make_goal(rng)
        assert all(answer in goal.text for _, answer in goal.facts)


def orders(exercise):
    """Yield for each action of an ordered walk the order's verb and words, and the action."""
    for at, segment in enumerate(exercise):
        if segment.text == ASSISTANT:
            order = exercise[at - 1].text.removesuffix(END).split("\n")[-1]
            verb, _, words = order.partition(": ")
            yield verb, words.split(", "), exercise[at + 1].text.removesuffix(END)


def test_an_order_names_the_words_of_its_action():
    found = set()
    for rng in rngs(100):
        for verb, words, action in orders(walk(rng, 12, ordered=1)):
            found.add(verb)
            match verb:
                case "look":
                    assert action == "look around"
                case "go":
                    assert action == f"teleport to {words[0]}"
                case "put":
                    assert action.startswith("move ")
                    assert action.endswith(f" in inventory to {words[0]}")
                case "move":
                    assert action == f"move {words[0]} to {words[1]}"
                case "take":
                    potted = action.startswith("pick up flower pot ")
                    assert potted or action == f"pick up {words[0]}"
                case "focus":
                    assert words[0].startswith("first ") or action == f"focus on {words[0]}"
                case _:
                    assert verb == "connect" and action.startswith("connect ")
    assert found == {"look", "go", "put", "move", "take", "focus", "connect"}


def test_walks_name_only_what_was_shown():
    for rng in rngs(100):
        shown = ""
        for segment in walk(rng, 12):
            if segment.text.startswith(USER):
                shown += segment.text
            elif segment.text.startswith(("focus on ", "pick up ")):
                name = segment.text.removesuffix(END).removeprefix("focus on ")
                words = name.removeprefix("pick up ").removeprefix("adult ").split()
                assert " ".join(words[-2:]) in shown or words[-1] in shown


@pytest.mark.parametrize("long", [False, True])
def test_exercises_depend_on_the_generator_alone(long):
    words = exercises.copy_words()
    first, again = (exercises.sample(random.Random(5), words, long, 0.1) for _ in range(2))
    assert first == again
    assert any(segment.text.startswith(ASSISTANT) for segment in first)


def test_its_tokenizer_has_a_token_for_each_fixed_phrase():
    curriculum, rng = CURRICULA["scienceworld"], random.Random(0)
    words = curriculum.copy_words()
    sampled = [curriculum.sample(rng, words, False, 0.2) for _ in range(500)]
    texts = ["".join(segment.text for segment in exercise) for exercise in sampled]
    tokenizer: tokenizers.Tokenizer = tokenizer_training.train(
        texts, curriculum.vocab_size, curriculum.fixed_phrases
    )
    assert tokenizer.get_vocab_size() <= curriculum.vocab_size
    tokens = tokenizer.encode(GREENHOUSE, add_special_tokens=False).tokens
    assert len(tokens) < len(GREENHOUSE) / 8
    action = "focus on egg giant tortoise"
    assert tokenizer.decode(tokenizer.encode(action, add_special_tokens=False).ids) == action
