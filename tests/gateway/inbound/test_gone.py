"""Who wants to know that a client left, is told once."""

from gateway.inbound.gone import Gone


def test_callback_is_called_once() -> None:
    told: list[str] = []
    gone = Gone()
    gone.on_gone(lambda: told.append("left"))
    assert (gone.lost, told) == (False, [])
    gone.lose()
    gone.lose()
    assert (gone.lost, told) == (True, ["left"])


def test_callback_is_called_at_once_when_the_client_has_left() -> None:
    told: list[str] = []
    gone = Gone()
    gone.lose()
    gone.on_gone(lambda: told.append("left"))
    assert told == ["left"]


def test_forgotten_callback_is_not_called() -> None:
    told: list[str] = []
    gone = Gone()
    gone.on_gone(lambda: told.append("left"))
    gone.forget()
    gone.lose()
    assert gone.lost and told == []
