"""What a surface's body becomes when a provider speaks chat completions only: the shape that all surfaces share.

Pure. Knows no surface: each has its own `to_chat`.
"""

from dataclasses import dataclass

from gateway.refusals import Refused


@dataclass(frozen=True, slots=True)
class Translation:
    """A chat completions request, and what chat completions cannot carry of the caller's body.

    `body` is in OpenAI's shape and is still to be checked as any caller's (gateway.chat_request). `lacking` names the
    caller's own fields: a provider that speaks the surface natively can serve the request all the same, for any other
    the sentence is the reason why not. Empty: nothing is lost.
    """

    body: dict[str, object]
    lacking: tuple[Refused, ...] = ()
