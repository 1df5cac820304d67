"""The `seggpt` command, the same as `python -m seggpt_jax.cli`."""

from seggpt_jax.runs import huge_pages


def main(argv: list[str] | None = None) -> None:
    """Runs a command, as `command.main`; without `argv` that of this process."""
    if argv is None:
        huge_pages.take()
    from seggpt_jax.cli import command  # late: the process may have started again

    command.main(argv)
