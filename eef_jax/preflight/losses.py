"""Whether the rounds' losses can learn from what the policy will have played, and from chats."""

from eef_jax.errors import ConfigError
from eef_jax.methods.base import loss_of
from eef_jax.preflight.start import Start
from eef_jax.storage import files


def check_losses(start: Start) -> None:
    """Check exploration and the start of training against the losses that the method asks for.

    Raises:
        ConfigError: the policy gradient would learn from truncated or greedy sampling; or a loss
            that compares with the policy that played would start from the base.
    """
    config, rounds = start.config, range(1, start.method.rounds + 1)
    names = {loss_of(start.method, number).name for number in rounds}
    explore = config.explore
    if "pg" in names and (explore.top_p < 1 or explore.top_k > 0 or explore.temperature == 0):
        raise ConfigError(
            f"explore has temperature {explore.temperature:g}, top_p {explore.top_p:g} and top_k "
            f"{explore.top_k}: the policy gradient of method {start.method.name!r} compares with "
            "the whole distribution that was sampled from; set explore.top_p=1, explore.top_k=0 "
            "and a temperature above 0"
        )
    if names & {"dpo", "pg"} and config.train.init_from == "base":
        raise ConfigError(
            f"train.init_from is 'base', but the loss of method {start.method.name!r} compares "
            "with the policy that played: set it to 'auto' or 'previous'"
        )


def check_conversations(start: Start) -> None:
    """Check that the files of chats are there.

    Raises:
        ConfigError: one is not.
    """
    paths = filter(None, (path.strip() for path in start.config.train.conversations.split(",")))
    if missing := [path for path in paths if not files.to_path(path).exists()]:
        raise ConfigError(
            f"config.train.conversations names {', '.join(missing)}, which is not there: expected "
            "files of JSON lines, with commas between them"
        )
