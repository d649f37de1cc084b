"""What cannot be carried of a request: the record that surfaces and translated wires share."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """A request that a wire cannot carry whole: the field, and a sentence that says what would help."""

    param: str
    sentence: str
