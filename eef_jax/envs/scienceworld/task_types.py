"""The 30 task types: names, numbers of variations, ends of the official splits, ETO's step caps.

The numbers are those of the package scienceworld 1.2.3, which asks a JVM for them; this table needs
none. Variations are numbered from 0: the first half is the official training split, the next
quarter the development split, the rest the test split.
"""

import dataclasses
import re

from eef_jax.errors import DataError, did_you_mean


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TaskType:
    """A task type.

    Attributes:
        number: the number that papers use, e.g. `"4-3"`.
        name: the simulator's name.
        train_end: number of variations in the official training split, 0 to `train_end - 1`.
        dev_end: end of the development split (exclusive).
        num_variations: number of all variations.
        eto_cap: ETO's cap on agent steps; 0: ETO leaves the type out.
    """

    number: str
    name: str
    train_end: int
    dev_end: int
    num_variations: int
    eto_cap: int

    @property
    def electrical(self) -> bool:
        """Whether the task needs the action `connect A to B`."""
        return "power-component" in self.name or "conductivity" in self.name

    def variations(self, split: str) -> range:
        """Return the variations of an official split."""
        return {
            "train": range(self.train_end),
            "dev": range(self.train_end, self.dev_end),
            "test": range(self.dev_end, self.num_variations),
        }[split]


# Number, name, train_end, dev_end, num_variations, eto_cap.
_ROWS = """
1-1 boil 14 21 30 100
1-2 melt 14 21 30 80
1-3 freeze 14 21 30 80
1-4 change-the-state-of-matter-of 14 21 30 80
2-1 use-thermometer 270 405 540 30
2-2 measure-melting-point-known-substance 218 327 436 120
2-3 measure-melting-point-unknown-substance 150 225 300 0
3-1 power-component 10 15 20 20
3-2 power-component-renewable-vs-nonrenewable-energy 10 15 20 30
3-3 test-conductivity 450 675 900 30
3-4 test-conductivity-of-unknown-substances 300 450 600 30
4-1 find-living-thing 150 225 300 15
4-2 find-non-living-thing 150 225 300 15
4-3 find-plant 150 225 300 15
4-4 find-animal 150 225 300 15
5-1 grow-plant 62 93 126 30
5-2 grow-fruit 62 93 126 60
6-1 chemistry-mix 16 24 32 60
6-2 chemistry-mix-paint-secondary-color 18 27 36 15
6-3 chemistry-mix-paint-tertiary-color 18 27 36 30
7-1 lifespan-longest-lived 62 93 125 10
7-2 lifespan-shortest-lived 62 93 125 10
7-3 lifespan-longest-lived-then-shortest-lived 62 93 125 12
8-1 identify-life-stages-1 6 9 14 30
8-2 identify-life-stages-2 4 6 10 30
9-1 inclined-plane-determine-angle 84 126 168 0
9-2 inclined-plane-friction-named-surfaces 692 1038 1386 0
9-3 inclined-plane-friction-unnamed-surfaces 80 120 162 0
10-1 mendelian-genetics-known-plant 60 90 120 0
10-2 mendelian-genetics-unknown-plant 240 360 480 0
"""


def _parse_row(row: str) -> TaskType:
    number, name, *rest = row.split()
    train_end, dev_end, num_variations, eto_cap = map(int, rest)
    return TaskType(
        number=number,
        name=name,
        train_end=train_end,
        dev_end=dev_end,
        num_variations=num_variations,
        eto_cap=eto_cap,
    )


TASK_TYPES = {
    task_type.name: task_type for task_type in map(_parse_row, _ROWS.strip().splitlines())
}
_BY_NUMBER = {task_type.number: task_type for task_type in TASK_TYPES.values()}


def find_task_type(name: str) -> TaskType:
    """Return a task type by its name, its number, or its name in earlier versions.

    Args:
        name: for example `"find-plant"`, `"4-3"`, `"task-3-find-plant"`,
            `"task-6-lifespan-(longest-lived)"`, or the old misspelling `"mendellian-..."`.

    Raises:
        DataError: there is no such type.
    """
    plain = re.sub(r"^task-[\dab]+-|[()]", "", name).replace("mendellian", "mendelian")
    found = _BY_NUMBER.get(name) or TASK_TYPES.get(plain)
    if found is None:
        raise DataError(f"ScienceWorld has no task {name!r}: {did_you_mean(name, TASK_TYPES)}")
    return found
