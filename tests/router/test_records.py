"""The router's records cannot change under a decision."""

import dataclasses
import importlib
import pkgutil

import pytest

import router

RECORDS = sorted(
    {
        record
        for module in pkgutil.iter_modules(router.__path__, "router.")
        for record in vars(importlib.import_module(module.name)).values()
        if isinstance(record, type) and dataclasses.is_dataclass(record) and record.__module__.startswith("router.")
    },
    key=lambda record: record.__qualname__,
)


def test_there_are_records() -> None:
    assert len(RECORDS) > 20


@pytest.mark.parametrize("record", RECORDS)
def test_a_record_is_frozen_and_slotted(record: type) -> None:
    assert record.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert "__slots__" in vars(record)
