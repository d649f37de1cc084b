"""The keys of one request: for each provider the one that is tried next, and when another of the same provider is.

Owns what was tried within one request. Must not know HTTP, nor who is asked next when a provider has no key left.
"""

from keystore.errors import CredentialUnusable
from keystore.holdings import Holding
from keystore.keyring import Credential, Keyring
from keystore.keystore import Keystore
from router.failure import Failure
from router.retry import lets_former_stand_in, wants_another_key


class KeysInTurn:
    """A tenant's keys, in the order that is drawn when a provider is first asked."""

    def __init__(self, keystore: Keystore, keyring: Keyring) -> None:
        self._keystore = keystore
        self._keyring = keyring
        self._left: dict[str, list[Holding]] = {}

    @property
    def tenant_id(self) -> str:
        return self._keyring.tenant_id

    def next(self, provider_id: str) -> Holding | None:
        """The key that is tried now; None when the tenant has none that can be used."""
        left = self._left.get(provider_id)
        if left is None:
            try:
                left = self._keystore.keys_in_turn(self._keyring, provider_id)
            except CredentialUnusable:
                left = []
            self._left[provider_id] = left
        return left[0] if left else None

    def unseal(self, provider_id: str) -> Credential:
        """That key, ready to travel. CredentialUnusable, naming what was looked for."""
        return self._keystore.unseal(self._keyring, provider_id, self.next(provider_id))

    def turn(self, failure: Failure) -> bool:
        """Whether the provider that failed is worth asking again with another key, which is the next one from now on.
        The key that failed is not tried again in this request, nor are its former versions unless it was refused."""
        left = self._left.get(failure.provider_id, [])
        if not wants_another_key(failure) or len(left) < 2:
            return False
        former = lets_former_stand_in(failure)
        rest = [one for one in left[1:] if one.grace_until is None or former or one.label != left[0].label]
        if rest:
            self._left[failure.provider_id] = rest
        return bool(rest)
