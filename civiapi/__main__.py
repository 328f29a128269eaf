"""``python -m civiapi`` and the console script ``civiapi`` are the same program."""

from civiapi.cli.main import run


def main() -> None:
    """Run the command line; exits with 0, 1 (the answer is an error) or 2 (a mistake in settings or arguments)."""
    run()


if __name__ == "__main__":
    main()
