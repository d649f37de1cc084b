"""The `wardgate` script: imports the command line late, so that Ctrl-C in its first second is no traceback either."""


def main() -> None:
    """Run the command line."""
    try:
        from gateway.cli import main as run

        run()
    except KeyboardInterrupt:
        raise SystemExit(130) from None


if __name__ == "__main__":
    main()
