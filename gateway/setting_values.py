"""What tables of wardgate.toml have in common: settings that are known, and numbers within bounds.

Must not know any setting.
"""

from collections.abc import Iterable

from router.errors import did_you_mean


def check_known(names: Iterable[str], known: list[str]) -> None:
    """ValueError for the first that is not known, with the nearest that is."""
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) or f"; known: {', '.join(known)}"
            raise ValueError(f"unknown setting {name!r}{near}")


def number(name: str, value: object, bounds: tuple[float, float], *, whole: bool) -> int | float:
    """The number, which is not below the first of the bounds nor above the second; ValueError."""
    least, most = bounds
    fits = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
    if not fits or not least <= value <= most:  # type: ignore[operator]
        kind = "a whole number" if whole else "a number"
        raise ValueError(f"{name} must be {kind} from {least:g} to {most:g}, not {value!r}")
    return value if whole else float(value)  # type: ignore[arg-type, return-value]
