"""When a key was last used: noted without I/O, written behind, the newest time wins whoever writes it."""

from datetime import timedelta

import pytest

from keystore.engine import Database
from keystore.errors import DatabaseUnavailable
from keystore.use import KeyUse, KeyUseInfo, UsedKey
from tests.keystore.conftest import START, World

KEY = UsedKey("t1", "MINIMAX_API_KEY", "", "minimax")
LATER = START + timedelta(seconds=5)


async def test_success_and_rejection_are_written(world: World) -> None:
    use = KeyUse(Database(world.url))
    use.note(KEY, START, ok=True)
    use.note(KEY, LATER, ok=False, rejected_status=401)
    use.note(UsedKey("t2", "X", "eu", "x"), START, ok=False)
    assert await use.of("t1") == []
    assert await use.flush() == 2
    assert await use.flush() == 0
    assert await use.of("t1") == [KeyUseInfo(KEY, LATER, START, LATER, 401)]
    assert (await use.of("t2"))[0].last_success_at is None
    await use._database.close()


async def test_newest_time_wins_whichever_process_writes_last(world: World) -> None:
    one, other = KeyUse(Database(world.url)), KeyUse(Database(world.url))
    one.note(KEY, LATER, ok=False, rejected_status=403)
    other.note(KEY, START, ok=True)
    other.note(KEY, START, ok=False, rejected_status=401)
    await one.flush()
    await other.flush()
    assert await one.of("t1") == [KeyUseInfo(KEY, LATER, START, LATER, 403)]
    await one._database.close()
    await other._database.close()


async def test_notes_outlive_a_database_that_is_away(world: World) -> None:
    use = KeyUse(Database(world.url))
    use.note(KEY, START, ok=True)
    await world.sql("ALTER TABLE wardgate_key_use RENAME TO away")
    with pytest.raises(DatabaseUnavailable):
        await use.flush()
    use.note(KEY, LATER, ok=False, rejected_status=429)
    await world.sql("ALTER TABLE away RENAME TO wardgate_key_use")
    assert await use.flush() == 1
    assert await use.of("t1") == [KeyUseInfo(KEY, LATER, START, LATER, 429)]
    await use._database.close()


async def test_memory_is_bounded(world: World) -> None:
    use = KeyUse(Database(world.url))
    for number in range(50_010):
        use.note(UsedKey(f"t{number}", "K", "", "p"), START, ok=True)
    assert use.dropped == 10
    await use._database.close()
