"""The keys of one request: for each provider the one that is tried next, and when another of the same provider is.

Owns what was tried within one request, and the ids under which keys are known to health. Must not know HTTP, nor who is
asked next when a provider has no key left.
"""

import hashlib
from collections.abc import Callable, Sequence

from keystore.errors import CredentialUnusable
from keystore.holdings import Holding
from keystore.keyring import Credential, Keyring
from keystore.keystore import Keystore
from router.failure import Failure
from router.health import HealthView, Ill
from router.retry import lets_former_stand_in, wants_another_key


def key_id(tenant_id: str, key: Holding) -> str:
    """An id that a key keeps until it changes: a version's own, or, of a legacy row, made of its fingerprint."""
    if key.credential_id is not None:
        return f"{tenant_id}/{key.credential_id}"
    mark = hashlib.blake2b(key.fingerprint, digest_size=8).hexdigest()
    return f"{tenant_id}/{key.setting_key}/{mark}"


class KeysInTurn:
    """A tenant's keys, in the order that is drawn when a provider is first asked; those that are ill come last."""

    def __init__(self, keystore: Keystore, keyring: Keyring, health: Callable[[], HealthView]) -> None:
        self._keystore = keystore
        self._keyring = keyring
        self._health = health
        self._left: dict[str, list[Holding]] = {}

    @property
    def tenant_id(self) -> str:
        return self._keyring.tenant_id

    def owner(self, provider_id: str) -> str:
        """The id of the tenant whose key for this provider is used."""
        return self._keyring.owner(provider_id)

    def next(self, provider_id: str, model: str) -> Holding | None:
        """The key that is tried now; None when the tenant has none that can be used."""
        left = self._left.get(provider_id)
        if left is None:
            try:
                left = self._keystore.keys_in_turn(self._keyring, provider_id)
            except CredentialUnusable:
                left = []
            self._left[provider_id] = left
        if len(left) > 1:
            left.sort(key=self._waits(left, provider_id, model))
        return left[0] if left else None

    def _waits(self, left: Sequence[Holding], provider_id: str, model: str) -> Callable[[Holding], bool]:
        """Says of a key whether others come first: it is ill, or a former version whose successor was not rejected."""
        health = self._health()

        def ill(one: Holding) -> Ill | None:
            return health.key_ill(provider_id, model, key_id(self.tenant_id, one))

        successors = {one.label: ill(one) for one in left if one.grace_until is None}

        def waits(one: Holding) -> bool:
            needless = (
                one.grace_until is not None and successors.get(one.label, Ill.KEY_REJECTED) is not Ill.KEY_REJECTED
            )
            return needless or ill(one) is not None

        return waits

    def id_of(self, provider_id: str) -> str:
        """The id of the key that `next` gave."""
        left = self._left.get(provider_id)
        return key_id(self.tenant_id, left[0]) if left else ""

    def unseal(self, provider_id: str) -> Credential:
        """That key, ready to travel. CredentialUnusable, naming what was looked for."""
        left = self._left.get(provider_id)
        return self._keystore.unseal(self._keyring, provider_id, left[0] if left else None)

    def turn(self, failure: Failure) -> bool:
        """Whether the provider that failed is worth asking again with another key, which is the next one from now on.
        The value that failed is not tried again in this request, under whichever label or version it is stored, nor are
        former versions of its label unless it was refused."""
        left = self._left.get(failure.provider_id, [])
        if not wants_another_key(failure) or len(left) < 2:
            return False
        former = lets_former_stand_in(failure)
        others = [one for one in left[1:] if not _is_same(one, left[0])]
        rest = [one for one in others if one.grace_until is None or former or one.label != left[0].label]
        if rest:
            self._left[failure.provider_id] = rest
        return bool(rest)


def _is_same(one: Holding, other: Holding) -> bool:
    """Whether both are one value that goes to one place."""
    return bool(one.fingerprint) and (one.fingerprint, one.fields) == (other.fingerprint, other.fields)
