"""`python -m eef_jax.importers --config=... --format=eto --file=FILE [--file=FILE] --out=FOLDER`.

Replays every attempt in the config's environment, says what came of it, and writes those that came
out equal. `--unverified` writes the others too, as their file tells them; `--messages=as_is` keeps
the agent's replies instead of saying them in the run's prompt.
"""

from absl import flags

from eef_jax import cli, plugins
from eef_jax import config as config_lib
from eef_jax.errors import ConfigError
from eef_jax.importers import _command
from eef_jax.untrusted import one_line, show

FLAGS = flags.FLAGS


def main() -> None:
    """Import the files that the flags name."""
    config = cli.read_config()
    if config is None or not FLAGS.format or not FLAGS.file or not FLAGS.out:
        raise ConfigError(
            "expected --config=FILE:PRESET, --format (one of "
            f"{', '.join(plugins.available('importers'))}), --file (once for each file) and --out"
        )
    env = config_lib.make("env", config.env)
    try:
        replays = _command.replay_files(env, FLAGS.file, FLAGS.format, messages=FLAGS.messages)
        for replay in replays:
            if replay.reason:
                show(one_line(f"{replay.conversation.place}: {replay.status}: {replay.reason}"))
        for name, count in _command.counts(replays).items():
            show(f"{count:>8,} {name}")
        written = _command.write(FLAGS.out, replays, unverified=FLAGS.unverified)
    finally:
        env.close()
    show(
        f"{written} trajectories in {FLAGS.out}; use them with "
        f"--config.expert.trajectories={FLAGS.out} {_tasks_flag(config.env)}"
    )


def _tasks_flag(section: object) -> str:
    return f"--config.env.imported_tasks={FLAGS.out}" if hasattr(section, "imported_tasks") else ""


def run() -> None:
    """Run the command."""
    cli.define_config()
    flags.DEFINE_string("format", "", "Format of the files.")
    flags.DEFINE_multi_string("file", [], "A file; give it once for each one.")
    flags.DEFINE_string("out", "", "Folder for the trajectories.")
    flags.DEFINE_enum("messages", "render", ["render", "as_is"], "How replies are said.")
    flags.DEFINE_bool("unverified", False, "Write attempts that diverged too.")
    cli.run(main)


if __name__ == "__main__":
    run()
