"""Made-up rooms read like the simulator's; questions have their answers before one's eyes."""

import random

import pytest
import tokenizers

from pretrain import goals, rooms, science, vocabulary, walks
from pretrain.course import COURSES
from pretrain.vocabulary import ASSISTANT, END, USER

# What the simulator shows; the exercises must write such rooms in just this form.
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


def test_a_room_is_written_as_the_simulator_writes_it():
    pea = (
        "a flower pot 2 (containing a pea plant in the reproducing stage with a tall height, soil)"
    )
    room = rooms.Room(
        name="greenhouse",
        things=(
            rooms.Thing(name="bee", line="a adult bee", kind="animal", stage="adult"),
            rooms.Thing(name="pea plant", line=pea, kind="plant", pot="flower pot 2"),
            rooms.Thing(name="jug", line="a jug (containing nothing)", kind="thing"),
        ),
        doors=("hallway", "outside"),
    )
    assert goals.shown(room).text == USER + GREENHOUSE + END


def test_marks_say_what_each_line_shows():
    for rng in rngs(50):
        room, goal = rooms.room(rng), goals.goal(rng)
        for asked in (None, goal):
            page = goals.shown(room, before="x\n", after="which?", asked=asked)
            for thing, mark in zip(room.things, page.marks, strict=True):
                assert page.text[: mark.at + 1].endswith(thing.line)
                fits = thing.kind in goal.sought
                by_goal = asked is not None and goal.sought
                assert mark.says == (("yes" if fits else "no") if by_goal else thing.kind)


def test_a_name_and_a_pot_occur_once_in_a_room():
    for rng in rngs(200):
        room = rooms.room(rng, size=18)
        names = [t.name for t in room.things] + [t.pot for t in room.things if t.pot]
        assert len(set(names)) == len(names)
        assert room.name not in room.doors


def test_questions_are_answered_by_the_room():
    for rng in rngs(300):
        room = rooms.room(rng)
        asked, answer = science.question(rng, room)
        text = goals.shown(room).text
        if answer not in ("none", "yes", "no"):
            named = answer.split(", ") if asked.startswith("all") else [answer]
            assert all(word in text for name in named for word in name.split())


def test_a_goal_says_what_is_asked_about_it():
    for rng in rngs(100):
        goal = goals.goal(rng)
        assert all(answer in goal.text for _, answer in goal.facts)


def orders(pieces):
    """Each action of an ordered walk with its order: what, and the words that it names."""
    for at, piece in enumerate(pieces):
        if piece.text == ASSISTANT:
            what, _, words = pieces[at - 1].text.removesuffix(END).split("\n")[-1].partition(": ")
            yield what, words.split(", "), pieces[at + 1].text.removesuffix(END)


def test_an_order_names_the_words_of_its_action():
    found = set()
    for rng in rngs(100):
        for what, words, action in orders(walks.walk(rng, 12, ordered=1)):
            found.add(what)
            match what:
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
                    assert what == "connect" and action.startswith("connect ")
    assert found == {"look", "go", "put", "move", "take", "focus", "connect"}


def test_walks_name_what_was_shown():
    for rng in rngs(100):
        shown = ""
        for piece in walks.walk(rng, 12):
            if piece.text.startswith(USER):
                shown += piece.text
            elif piece.text.startswith(("focus on ", "pick up ")):
                name = piece.text.removesuffix(END).removeprefix("focus on ")
                words = name.removeprefix("pick up ").removeprefix("adult ").split()
                assert " ".join(words[-2:]) in shown or words[-1] in shown


@pytest.mark.parametrize("long", [False, True])
def test_draws_depend_on_the_generator_alone(long):
    known = science.words()
    first, again = (science.draw(random.Random(5), known, long, 0.1) for _ in range(2))
    assert first == again
    assert any(piece.text.startswith(ASSISTANT) for piece in first)


def test_its_tokenizer_has_a_token_for_each_fixed_text():
    course, rng = COURSES["scienceworld"], random.Random(0)
    known = course.words()
    texts = ["".join(p.text for p in course.draw(rng, known, False, 0.2)) for _ in range(500)]
    tokenizer: tokenizers.Tokenizer = vocabulary.train(texts, course.vocab, course.furniture)
    assert tokenizer.get_vocab_size() <= course.vocab
    found = tokenizer.encode(GREENHOUSE, add_special_tokens=False).tokens
    assert len(found) < len(GREENHOUSE) / 8
    action = "focus on egg giant tortoise"
    assert tokenizer.decode(tokenizer.encode(action, add_special_tokens=False).ids) == action
