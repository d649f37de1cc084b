"""LiteLLM's bundled price map, read as data: the file is found beside the package, and the package is not imported.

Owns where the file is and how its numbers are read: as Decimal, never as float. Reads files; the modules that decide do
not import it. Must not know what a row means.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from router.errors import PriceMapError

_PACKAGE: Final = "litellm"
_FILE: Final = "model_prices_and_context_window_backup.json"


@dataclass(frozen=True, slots=True)
class PriceMap:
    """Rows by LiteLLM's name of the model, and which file they are: "bundled-1.106.2-1f3a9c0e"."""

    rows: Mapping[str, Mapping[str, object]]
    version: str


def load_bundled() -> PriceMap:
    """The price map inside the installed litellm distribution. Raises PriceMapError when it is absent or broken."""
    spec = find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise PriceMapError("litellm is not installed; its bundled price map is where models and prices come from")
    try:
        release = installed_version(_PACKAGE)
    except PackageNotFoundError:  # a source tree on the path
        release = "unknown"
    return read_price_map(Path(spec.submodule_search_locations[0]) / _FILE, label=f"bundled-{release}")


def read_price_map(path: Path, *, label: str) -> PriceMap:
    """The price map in this file; its version is the label and the first 8 hex digits of the content's SHA-256."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PriceMapError(f"the price map {path.name} cannot be read: {error.strerror or error}") from error
    try:
        rows = json.loads(content, parse_float=Decimal, parse_constant=Decimal)
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise PriceMapError(f"the price map {path.name} is not valid JSON: {error}") from error
    if not isinstance(rows, dict) or not rows:
        raise PriceMapError(f"the price map {path.name} holds no rows")
    return PriceMap(rows, f"{label}-{hashlib.sha256(content).hexdigest()[:8]}")
