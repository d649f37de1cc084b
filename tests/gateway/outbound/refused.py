"""An exchange whose provider is at a URL that no row would be allowed to hold."""

from dataclasses import replace

from gateway.transport import Exchange
from keystore.keyring import Credential
from keystore.providers import host_of, load_registry
from keystore.resolve import Store, Via
from keystore.secret import Secret


def exchange(url: str) -> Exchange:
    """Row and key are both for the URL's host: nothing but the address itself is in the way."""
    row = load_registry({}).get("minimax")
    assert row is not None
    hosts = (host_of(url),)
    provider = replace(row, base_url=url, hosts=hosts)
    key = Secret("Zq7-plainLookingKey.0123456789")
    credential = Credential("minimax", key, frozenset(hosts), "X", Via.CANONICAL, Store.CREDENTIALS, provider)
    return Exchange(credential, provider, idle_s=1)
