"""What is asked of every side: the same request but for the model and the token, as the bytes of an HTTP request."""

import orjson

from tests.benchmarks.children import HOST
from tests.benchmarks.load import Load, Target
from tests.benchmarks.sides import Side

SYSTEM = "You answer questions about orders, invoices and deliveries in full sentences. " * 12  # about 1 kB
SAID = "Where is order 4711, and when will it be delivered?"
MB = 1_000_000


def target(side: Side, load: Load) -> Target:
    """Where and what to ask of a side under a load."""
    body = body_of(side.model, load)
    head = (
        f"POST {side.path} HTTP/1.1\r\nhost: {HOST}:{side.port}\r\nauthorization: Bearer {side.token}\r\n"
        f"content-type: application/json\r\naccept: */*\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return Target(side.name, HOST, side.port, head.encode() + body)


def body_of(model: str, load: Load) -> bytes:
    """The chat completions request of a load."""
    said: object = SAID
    if load.body_mb:
        picture = "data:image/png;base64," + "iVBORw0KGgoAAAAN" * (load.body_mb * MB // 16)
        said = [{"type": "text", "text": SAID}, {"type": "image_url", "image_url": {"url": picture}}]
    system = f"[bench chunks={load.chunks} gap={load.gap_ms}] {SYSTEM}"
    messages = [{"role": "system", "content": system}, {"role": "user", "content": said}]
    streamed = {"stream": True, "stream_options": {"include_usage": True}} if load.chunks else {}
    return orjson.dumps({"model": model, "messages": messages, "temperature": 0.2, **streamed})
