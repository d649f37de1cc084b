"""What is kept for good is looked through by no collection, and collections go on as before."""

import gc

import pytest

from gateway.garbage import kept_for_good


@pytest.mark.parametrize("collects", [True, False])
def test_what_is_made_inside_is_no_collections_business(collects: bool) -> None:
    was, frozen = gc.isenabled(), gc.get_freeze_count()
    try:
        (gc.enable if collects else gc.disable)()
        with pytest.raises(KeyError), kept_for_good():
            assert not gc.isenabled()
            made = [[number] for number in range(1_000)]
            raise KeyError
        assert gc.isenabled() is collects
        assert gc.get_freeze_count() >= frozen + len(made)
    finally:
        (gc.enable if was else gc.disable)()
        if not frozen:  # else the session's own are frozen with them
            gc.unfreeze()
