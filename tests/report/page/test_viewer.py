"""The page in a browser: filters, keys, links, chains, comparison; light, dark and on a phone."""

import dataclasses
import shutil

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe

from eef_jax.data import tfrecord
from eef_jax.methods.rft import Rft
from eef_jax.methods.sft_positive import SftPositive
from eef_jax.report import compare, write
from eef_jax.storage.trajectories import index_trajectories
from eef_jax.types import Example
from tests import toyrun

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HARD = "#view=list&run=0&stage=expert&id=expert/toy/train/1"
LOST = (
    "#view=list&run=0&stage=round_0/evaluate&id=e/2"
    "&with_run=0&with_stage=round_2/evaluate&with_id=e/2"
)
HOSTILE = (
    "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
    "</script><!-- </body> \u202eright to left\u2066 \x00 \ud800 {{ 7 * 7 }} &lt;b&gt;"
)


def finished(root, **options):
    work = toyrun.make(root, **options)
    write(work)
    return work.root / "report.html"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A page of the toy run, in which a recovery of round 1 is stored as tokens."""
    root = tmp_path_factory.mktemp("page")
    work = toyrun.make(root / "run")
    stage = work.stage("round_1/select")
    rollouts = {a.id: a for a in index_trajectories(work.stage("round_1/explore").folder)}
    won = next(a for a in rollouts.values() if a.win and a.fork_step == 3)
    texts = [t for step in won.load().steps for t in ("page", step.message)]
    example = Example(
        id=f"{won.id}:recovery@2",
        tokens=np.arange(len(texts), dtype=np.int32),
        weights=np.array([0, 0, 0, 0, 0, 1, 0, 1], np.float32),
        provenance=dict.fromkeys(tfrecord.PROVENANCE, ""),
    )
    tfrecord.write(stage.folder / "dataset", [example])
    stage.commit(stage.manifest()["counts"], toyrun.PROVENANCE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "eef_jax.report.tokens.Texts.pieces", lambda self, ids: [texts[i] for i in ids]
        )
        write(work)
    return work.root / "report.html"


def axe(tab):
    """What an accessibility checker finds serious."""
    found = Axe().run(tab.page).response["violations"]
    return [
        (each["id"], node["html"])
        for each in found
        if each["impact"] in ("serious", "critical")
        for node in each["nodes"]
    ]


def test_the_report_says_the_result_first(tab, path):
    page = tab(path)
    assert page.text("h1") == "eef wins 75.0 % [30.1, 95.4] of 4 test tasks."
    assert "The clone it started from wins 50.0 %" in page.text(".lead")
    assert page.page.locator(".hero svg").count() == 1
    assert "100.0 %" in page.text("#results tr.strong")
    links = page.texts("#through-0 td a")
    assert links == ["toy/train/1", "toy/train/3"]
    page.click("#through-0 td a")
    assert "expert/toy/train/1" in page.text("#detail .id")


def test_filters_and_search(tab, path):
    page = tab(path, "#view=list")
    assert page.text("#count") == "36 trajectories"
    page.page.select_option("#by-kind", "expert")
    page.settle()
    assert page.text("#count") == "4 trajectories"
    page.page.select_option("#by-outcome", "failed")
    page.settle()
    assert page.text("#count") == "2 trajectories"
    page.page.select_option("#by-kind", "")
    page.page.select_option("#by-outcome", "")
    for name, count in {"through": 18, "recovery": 6, "selected": 14, "harmful": 2}.items():
        page.page.check(f"#only-{name}")
        page.settle()
        assert page.text("#count") == f"{count} trajectories", name
        page.page.uncheck(f"#only-{name}")
    page.page.select_option("#by-round", "2")
    page.page.select_option("#by-tag", "easy")
    page.settle()
    assert page.text("#count") == "4 trajectories"  # two rollouts, two held-out tasks
    assert "f_round=2" in page.hash and "f_tag=easy" in page.hash
    page.page.select_option("#by-round", "")
    page.page.select_option("#by-tag", "")
    page.page.fill("#search", "goal 3 own2")
    page.settle()
    assert page.text("#count") == "5 trajectories"
    again = tab(path, page.hash)  # filters are a part of the address
    assert again.text("#count") == "5 trajectories"


def test_keys(tab, path):
    page = tab(path, "#view=list")
    page.press("j")
    assert "expert/toy/train/0" in page.text("#detail .id")
    page.press("ArrowDown", "j", "k")
    assert "expert/toy/train/1" in page.text("#detail .id")
    page.press("ArrowRight", "ArrowRight")
    assert "step=1" in page.hash and page.page.locator(".step.open").count() == 1
    page.press("ArrowLeft")
    assert "step=0" in page.hash
    page.press("/")
    assert page.page.evaluate("document.activeElement.id") == "search"
    page.page.keyboard.press("Escape")
    assert page.page.evaluate("document.activeElement.id") == "list"
    page.press("Escape")
    assert "step" not in page.hash and "id=" in page.hash
    page.press("Escape")
    assert "id=" not in page.hash


def test_links_lead_to_a_step_and_back_and_forward_work(tab, path):
    page = tab(path, f"{HARD}&step=1")
    assert page.page.locator("#step-1.open").count() == 1
    assert "page" in page.text("#step-1 pre")
    page.click("#row-0")
    assert "expert/toy/train/0" in page.text("#detail .id")
    page.page.go_back()
    page.settle()
    assert page.page.locator("#step-1.open").count() == 1
    page.page.go_forward()
    page.settle()
    assert "expert/toy/train/0" in page.text("#detail .id")
    page.click("#to-report")
    assert page.page.is_visible("h1") and not page.page.is_visible("#list")


def test_the_chain_of_states(tab, path):
    page = tab(path, HARD)
    assert page.texts(".node") == ["s₀\n0/1", "s₁\n1/1", "s₂\n0/1", "s₃\n1/1", "lost"]
    assert page.texts(".learned") == ["s₀ solved by\nwon", "s₂ solved by\nwon"]
    learned = page.page.locator(".learned .act").evaluate_all("xs => xs.map(x => x.classList[1])")
    assert learned == ["kept", "own", "kept", "own"]
    kinds = page.page.locator(".steps > .step").evaluate_all("xs => xs.map(x => x.classList[1])")
    assert kinds == ["kept", "harmful", "kept", "none"]
    said = page.text(".steps")
    first = page.texts("#step-0 .why")
    assert first == [
        "for s₀: kept, it leads from a state the policy failed from to one it won from",
        "for s₂: masked, context before the important state, not learned",
    ]
    assert "masked: the policy won from before it and failed after it" in said
    assert "s₀ is solved by the expert's beneficial action 1, then the policy's own" in said
    assert "s₂ is solved by the expert's beneficial action 3" in said
    assert "It failed after a state that passed: it needs recovery." in said
    assert page.texts(".rounds button") == ["round 1", "round 2"]
    page.click(".rounds button:first-child")
    assert page.text(".rounds [aria-pressed=true]") == "round 1"
    page.click(".solution a:has-text('the selected trajectory')")
    assert "round_1/toy/train/1" in page.text("#detail .id")
    assert "From here the policy plays on" in page.text(".state.fork")
    assert page.texts(".step .verdict") == ["kept", "kept"]  # the expert's action, and its own


def test_tokens_with_weights(tab, path):
    page = tab(path, "#view=list&f_recovery=1&f_kind=explore")
    page.press("j")
    page.press("ArrowRight", "ArrowRight", "ArrowRight")
    page.page.click(".tokens summary")
    page.page.wait_for_selector(".pieces")
    assert page.texts(".pieces span") == ["page", "click[id1]"]
    assert page.texts(".pieces .w") == ["click[id1]"]
    assert "2 tokens, 1 learned" in page.text(".tokens .why")


def test_two_attempts_side_by_side(tab, path):
    page = tab(path, LOST)
    assert page.text(".forkline") == "4 equal steps, then they part".replace("4", "3")
    one, two = "round_1/toy/train/1/s0/0", "round_1/toy/train/1/expert/toy/train/1@3/0"
    page.open(
        f"#view=list&run=0&stage=expert&id=expert/toy/train/1&with_run=0"
        f"&with_stage=round_1/explore&with_id={two}"
    )
    assert page.text(".forkline") == "3 equal steps, then they part"
    cells = page.texts(".beside > .card-step code")
    assert cells == ["click[buy now]", "click[own1]"]
    page.page.select_option("#compare", label="round 1, by sft_positive (clone), failed")
    page.settle()
    assert f"with_id={one}".replace("/", "%2F") in page.hash
    assert page.text(".forkline") == "They part at the first step"
    page.press("Escape")
    assert page.page.locator(".beside").count() == 0


def hostile(number):
    task = dataclasses.replace(toyrun.tasks("test")[0], goal=HOSTILE, tags=("easy", HOSTILE))
    attempt = toyrun.attempt(task, [HOSTILE, "x" * 1_000_000], number > 0, id=f"e/{HOSTILE}")
    steps = [dataclasses.replace(s, observation=HOSTILE, info={}) for s in attempt.steps]
    return [dataclasses.replace(attempt, steps=tuple(steps), final_observation=HOSTILE)]


def test_hostile_text_stays_text(tab, tmp_path):
    page = tab(finished(tmp_path / "run", evaluated=hostile), "#view=list&f_kind=evaluate")
    page.press("j", "ArrowRight")
    shown = page.text("#detail")
    assert "<script>document.title='owned'</script><img src=x" in shown
    assert "U+202E" in shown and "\u202e" not in shown and "&lt;b&gt;" in shown
    assert page.page.locator("#detail img, #report img").count() == 0
    assert "owned" not in page.page.title()
    assert page.page.locator("script").count() == page.page.locator("body script").count()
    page.press("ArrowRight")
    assert "Show all 1,000,000 characters" in page.text("#step-1")
    width = page.page.evaluate("document.documentElement.scrollWidth")
    assert width <= 1400
    page.click("#to-report")
    assert page.page.is_visible("h1")


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [390, 1400])
def test_an_accessibility_checker_finds_nothing_serious(tab, path, dark, width):
    page = tab(path, width=width, dark=dark)
    for hash in ("", f"{HARD}&step=1", LOST, "#view=list"):
        page.open(hash)
        assert axe(page) == []
        assert page.page.evaluate("document.documentElement.scrollWidth") <= width


def lost_all(number):
    return [dataclasses.replace(a, win=False) for a in toyrun.evaluated(number)]


def one_task(number):
    return toyrun.evaluated(number)[:1]


SFT = toyrun.CONFIG | {"method": {"name": "sft_positive"}}
RUNS: dict = {
    "no wins": ({"evaluated": lost_all}, "eef wins 0.0 % [0.0, 49.0] of 4 test tasks."),
    "one task": ({"evaluated": one_task}, "eef wins 100.0 % [20.7, 100.0] of 1 test tasks."),
    "nothing played": ({"until": "expert"}, "No policy has been evaluated yet."),
    "interrupted": ({"until": "round_1/select"}, "eef wins 50.0 % [15.0, 85.0] of 4 test tasks."),
    "no expert states": (
        {"config": SFT, "method": SftPositive()},
        "sft_positive wins 50.0 % [15.0, 85.0] of 4 test tasks.",
    ),
}


@pytest.mark.parametrize("name", RUNS)
def test_runs_of_every_kind(tab, tmp_path, name):
    options, sentence = RUNS[name]
    page = tab(finished(tmp_path / "run", **options))
    assert page.text("h1") == sentence
    if "until" in options:
        assert "eef is not finished" in page.text(".lead")
    page.open("#view=list")
    page.press("j")
    assert page.page.locator("#detail .goal").count() == (name != "nothing played")


def test_three_methods(tab, tmp_path):
    rft = toyrun.CONFIG | {"method": {"name": "rft", "rounds": 2}}
    works = [
        toyrun.make(tmp_path / "eef"),
        toyrun.make(tmp_path / "rft", config=rft, method=Rft(rounds=2), evaluated=lost_all),
        toyrun.make(tmp_path / "sft", config=SFT, method=SftPositive()),
    ]
    compare(works, tmp_path / "comparison.html")
    shutil.rmtree(tmp_path / "eef")  # the page needs no other file
    page = tab(tmp_path / "comparison.html")
    assert page.text("h1") == "eef wins 75.0 % [30.1, 95.4] of 4 test tasks."
    assert "Against rft: +75.0 points" in page.text(".lead")
    assert page.texts("h2.part") == ["eef", "rft", "sft_positive"]
    page.open("#view=list")
    page.page.select_option("#by-run", label="rft")
    page.settle()
    assert page.text("#count") == "24 trajectories"
