"""Config fields that all environments on Java simulators have."""

import dataclasses

from eef_jax.config.fields import check, field


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class SimulatorConfig:
    """Base of the sections `env` of environments on Java simulators."""

    dev_tasks: int = field(0, "first tasks of the dev split; 0: all", at_least=0)
    test_tasks: int = field(0, "first tasks of the test split; 0: all", at_least=0)
    jvms: int = field(
        0, "simulator processes; 0: one for each core of this process", at_least=0, kind="free"
    )
    timeout_s: float = field(
        60.0, "limit of one simulator call", unit="seconds", above=0, kind="free"
    )

    def __post_init__(self) -> None:
        check(self, "env")
