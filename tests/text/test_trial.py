"""The first rendering of a chat template: endless and greedy ones end with a clear error."""

import pytest

from eef_jax.errors import PolicyError
from eef_jax.text import tokenizer, trial
from tests.text import toys

_LOOP = "{% for i in range(99999) %}"


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(trial, "CPU_SECONDS", 1)


@pytest.mark.parametrize("template", [toys.NANO, *toys.REAL.values()])
def test_real_templates_pass(template):
    trial.check(template, {"bos_token": "<s>", "eos_token": "</s>"})


@pytest.mark.parametrize(
    "template", ["{{ raise_exception('no') }}", "{{ 1 / 0 }}", "{% for %}", ""]
)
def test_templates_with_a_fault_pass_because_rendering_them_says_more(template):
    trial.check(template, {})


@pytest.mark.parametrize(
    ("template", "what"),
    [
        (_LOOP * 3 + "{% endfor %}" * 3, "did not end within 1 seconds"),
        (_LOOP + "{{ 'hello, ' * 99 }}{% endfor %}", "more than 1,000,000 characters"),
        ("{{ 'x' * 4000000000 }}", "1 GiB of memory"),
    ],
)
def test_endless_and_greedy_templates_are_refused(template, what):
    with pytest.raises(PolicyError, match=f"{what}.*damaged or hostile"):
        trial.check(template, {})


def test_templates_of_a_folder_are_tried_before_they_are_used(tmp_path):
    toys.tokenizer("{{ 'x' * 4000000000 }}")._backend.save_pretrained(tmp_path)
    with pytest.raises(PolicyError, match="memory"):
        tokenizer.load(tmp_path)
