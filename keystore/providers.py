"""The provider rows: who speaks which wire at which URL, and under which names its keys were ever stored.

Owns the shape of a row, its validation, and the registry that holds the rows in order. Pure but for reading the
packaged providers.toml. Must not know keys, tenants, databases, prices or plans. The one keystore module that the
router imports.
"""

import hashlib
import re
import tomllib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from enum import StrEnum
from importlib.resources import files
from ipaddress import ip_address
from types import MappingProxyType
from typing import Final
from urllib.parse import urlsplit

from keystore.errors import RegistryError, did_you_mean
from keystore.row_reader import RowReader, wrong
from keystore.templates import fill, places_of

_ID: Final = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_VARIABLE: Final = re.compile(r"[A-Z][A-Z0-9_]*")
_HOST: Final = re.compile(r"(?:http://)?(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::[0-9]{1,5})?")
_DEFAULT_PORTS: Final = MappingProxyType({"https": 443, "http": 80})


class Wire(StrEnum):
    """What the provider speaks: a caller's own wire, or something that needs LiteLLM to translate."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    LITELLM = "litellm"


class Speaks(StrEnum):
    """A surface that a provider may speak itself, so that it is sent a caller's own fields."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    EMBEDDINGS = "embeddings"
    RESPONSES = "responses"
    MESSAGES = "messages"


class Forwarding(StrEnum):
    """How chat completions reach the provider: straight through where it speaks the wire, or always by LiteLLM."""

    AUTO = "auto"
    LITELLM = "litellm"


class Auth(StrEnum):
    """How the key travels: `Authorization: Bearer`, or a header of the value's own name; a service account's key does
    not travel, it is exchanged for a token at `token_url`."""

    BEARER = "bearer"
    X_API_KEY = "x-api-key"
    API_KEY = "api-key"
    X_GOOG_API_KEY = "x-goog-api-key"
    GOOGLE_SERVICE_ACCOUNT = "google-service-account"


_SPEAKS: Final[Mapping[Wire, frozenset[Speaks]]] = MappingProxyType(
    {
        Wire.OPENAI: frozenset({Speaks.CHAT, Speaks.COMPLETIONS, Speaks.EMBEDDINGS}),
        Wire.ANTHROPIC: frozenset({Speaks.MESSAGES}),
        Wire.LITELLM: frozenset(),
    }
)
_AUTHS: Final[Mapping[Wire, tuple[Auth, ...]]] = MappingProxyType(
    {
        Wire.OPENAI: (Auth.BEARER, Auth.API_KEY, Auth.X_API_KEY, Auth.GOOGLE_SERVICE_ACCOUNT),
        Wire.ANTHROPIC: (Auth.X_API_KEY, Auth.BEARER),
        Wire.LITELLM: (Auth.BEARER, Auth.X_API_KEY, Auth.API_KEY, Auth.X_GOOG_API_KEY),
    }
)


@dataclass(frozen=True, slots=True)
class Provider:
    """One row. `former_ids` are newest first and outlive the rows they once named."""

    id: str
    name: str
    wire: Wire
    base_url: str
    hosts: tuple[str, ...]  # where its keys may travel, spelled as `host_of` does
    auth: Auth
    api_key_env_var: str  # its key family
    former_ids: tuple[str, ...] = ()
    catalogue_ids: tuple[str, ...] = ()  # values of litellm_provider in LiteLLM's price map
    litellm_prefix: str = ""  # needed by every wire but openai
    key_pattern: str | None = None  # a regular expression that the whole of every key matches
    retired: bool = False  # a tombstone: no traffic, its names still resolve
    open_models: bool = False  # any model id may be asked for by its qualified name
    free: bool = False  # a zero price in the map is real
    quirks: Mapping[str, str] = field(default_factory=dict, hash=False)  # request field -> the name the provider reads
    fields: Mapping[str, str] = field(default_factory=dict, hash=False)  # what a key comes with: name -> what it is
    tenant_base_url: bool = False  # a key may name another base URL, on one of `hosts`
    token_url: str = ""  # where a key that does not travel is exchanged for an access token
    surfaces: tuple[Speaks, ...] = ()  # that it speaks besides those of its wire
    forwarding: Forwarding = Forwarding.AUTO
    thoughts_beyond_limit: int = 0  # tokens that a model may think beyond `max_tokens`; 0: it bounds them too
    speaks: frozenset[Speaks] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "speaks", _SPEAKS[self.wire] | frozenset(self.surfaces))


class Registry:
    """The rows in order, found by id, former id or catalogue id. Immutable."""

    __slots__ = ("__by_catalogue_id", "__by_former_id", "__by_id", "__providers", "__version")

    def __init__(self, providers: Iterable[Provider]) -> None:
        rows = tuple(providers)
        _check_together(rows)
        self.__providers = rows
        self.__by_id = {row.id: row for row in rows}
        self.__by_former_id = {former: row for row in rows for former in row.former_ids}
        self.__by_catalogue_id = {name: row for row in rows for name in row.catalogue_ids}
        self.__version = _version(rows)

    @property
    def providers(self) -> tuple[Provider, ...]:
        """Every row, retired ones too, in registry order."""
        return self.__providers

    @property
    def version(self) -> str:
        """12 hex digits that change when any field of any row does."""
        return self.__version

    def get(self, provider_id: str) -> Provider | None:
        """The row with exactly this id, retired ones too."""
        return self.__by_id.get(provider_id)

    def successor(self, name: str) -> Provider | None:
        """The row that answers for `name` today: the live row of that id, else the row that lists it as a former id,
        else its own tombstone."""
        row = self.__by_id.get(name)
        if row is not None and not row.retired:
            return row
        return self.__by_former_id.get(name) or row

    def by_catalogue_id(self, catalogue_id: str) -> Provider | None:
        """The row that claims this `litellm_provider` of the price map."""
        return self.__by_catalogue_id.get(catalogue_id)

    def live(self) -> tuple[Provider, ...]:
        """The rows that may have traffic."""
        return tuple(row for row in self.__providers if not row.retired)

    def __repr__(self) -> str:
        return f"Registry({len(self.__providers)} providers, version {self.__version})"


def load_registry(overrides: Mapping[str, Mapping[str, object]] = MappingProxyType({})) -> Registry:
    """The shipped rows with `overrides` (id -> fields, as in `[providers.<id>]` of wardgate.toml) laid over them field
    by field; an unknown id is a new row, after the shipped ones. Raises RegistryError naming row, field and fault."""
    shipped = tomllib.loads(files("keystore").joinpath("providers.toml").read_text(encoding="utf-8"))["providers"]
    rows: dict[str, dict[str, object]] = {provider_id: dict(row) for provider_id, row in shipped.items()}
    for provider_id, row in overrides.items():
        if not isinstance(row, Mapping):
            raise RegistryError(f"provider {provider_id!r}: a row is a table of fields")
        rows.setdefault(provider_id, {}).update(row)
    return Registry(provider_from_row(provider_id, row) for provider_id, row in rows.items())


def setting_key_of(provider_id: str) -> str:
    """The name under which a key of this provider id is stored: `minimax_2_7` -> `MINIMAX_2_7_API_KEY`."""
    return re.sub(r"[^A-Z0-9]", "_", provider_id.upper()) + "_API_KEY"


def host_of(url: str) -> str:
    """The host a request to `url` goes to, as `hosts` spells it: lower-case, with the port unless it is the scheme's
    own, and with `http://` in front where a key would leave this machine in clear. A key for the one is none for the
    other. Raises ValueError when the URL has none."""
    parts = urlsplit(url)
    if not parts.hostname:
        raise ValueError("the URL names no host")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = parts.port
    if port is not None and port != _DEFAULT_PORTS.get(parts.scheme):
        host = f"{host}:{port}"
    return host if parts.scheme == "https" or _is_loopback(parts.hostname) else f"{parts.scheme}://{host}"


def _is_loopback(hostname: str) -> bool:
    try:
        return hostname == "localhost" or ip_address(hostname).is_loopback
    except ValueError:
        return False


BASE_URL: Final = "base_url"  # the field by which a key names another base URL


def filled(provider: Provider, values: Mapping[str, str]) -> Provider:
    """The row as it is for a key with these fields: its URL and hosts without places. KeyError names a field that is
    lacking, ValueError one that does not fit. A key's own base URL counts where the row allows one; its host is not
    checked here."""
    own = values.get(BASE_URL, "") if provider.tenant_base_url else ""
    if not provider.fields and not own:
        return provider
    base_url = own.rstrip("/") or fill(provider.base_url, values)
    return replace(provider, base_url=base_url, hosts=tuple(fill(host, values) for host in provider.hosts))


def check_id(provider_id: str) -> None:
    """Raises RegistryError for what cannot be a provider's id."""
    if not _ID.fullmatch(provider_id):
        raise RegistryError(f"provider {provider_id!r}: an id is lower-case letters, digits, '_', '-' and '.'")


def no_provider(provider_id: str, registry: Registry) -> RegistryError:
    """The error that there is none of this id, which names the nearest."""
    near = did_you_mean(provider_id, {one.id for one in registry.providers})
    return RegistryError(f"there is no provider {provider_id!r}{near}")


# --- one row -------------------------------------------------------------------------------------------------------


def provider_from_row(provider_id: str, row: Mapping[str, object]) -> Provider:
    """A checked Provider from a row's fields. `name` defaults to the id, `auth` to bearer, `api_key_env_var` to the
    canonical name; `wire`, `base_url` and `hosts` must be given."""
    check_id(provider_id)
    reader = RowReader(provider_id, row, known=_FIELDS, needed=_NEEDED)
    reader.refuse_unknown_fields()
    provider = Provider(
        id=provider_id,
        name=reader.text("name", provider_id),
        wire=reader.choice("wire", Wire),
        base_url=reader.text("base_url").rstrip("/"),
        hosts=tuple(map(_as_host_of, reader.texts("hosts", required=True))),
        auth=reader.choice("auth", Auth, Auth.BEARER),
        api_key_env_var=reader.text("api_key_env_var", setting_key_of(provider_id)),
        former_ids=reader.texts("former_ids"),
        catalogue_ids=reader.texts("catalogue_ids"),
        litellm_prefix=reader.text("litellm_prefix", ""),
        key_pattern=reader.text("key_pattern") if "key_pattern" in row else None,
        retired=reader.flag("retired"),
        open_models=reader.flag("open_models"),
        free=reader.flag("free"),
        quirks=reader.renames("quirks"),
        fields=reader.renames("fields"),
        tenant_base_url=reader.flag("tenant_base_url"),
        token_url=reader.text("token_url", ""),
        surfaces=reader.choices("surfaces", Speaks),
        forwarding=reader.choice("forwarding", Forwarding, Forwarding.AUTO),
        thoughts_beyond_limit=reader.count("thoughts_beyond_limit"),
    )
    _check_row(provider)
    return provider


def _as_host_of(host: str) -> str:
    """A listed host as `host_of` spells it: `http://127.0.0.1:9200` is `127.0.0.1:9200`."""
    try:
        return host_of(host) if host.startswith("http://") and _HOST.fullmatch(host) else host
    except ValueError:
        return host


_FIELDS: Final = tuple(each.name for each in fields(Provider) if each.init and each.name != "id")
_NEEDED: Final = ("wire", "base_url", "hosts")


def _check_row(row: Provider) -> None:
    _check_fields(row)
    sample = filled(row, dict.fromkeys(row.fields, "1"))
    _check_base_url(sample)
    _check_hosts(sample)
    if not _VARIABLE.fullmatch(row.api_key_env_var):
        raise wrong(row.id, "api_key_env_var", "must be upper-case letters, digits and '_'", row.api_key_env_var)
    for former in row.former_ids:
        if not _ID.fullmatch(former):
            raise wrong(row.id, "former_ids", "must be provider ids", former)
        if former == row.id:
            raise wrong(row.id, "former_ids", "must not name the row itself", former)
    if row.wire is not Wire.OPENAI and not row.litellm_prefix:
        raise RegistryError(f"provider {row.id!r}: litellm_prefix is missing; a row with wire {row.wire} needs it")
    if row.auth not in _AUTHS[row.wire]:
        raise wrong(row.id, "auth", f"must be one of {', '.join(_AUTHS[row.wire])} on wire {row.wire}", row.auth.value)
    _check_token_url(row)
    _check_pattern(row)


def _check_token_url(row: Provider) -> None:
    if bool(row.token_url) != (row.auth is Auth.GOOGLE_SERVICE_ACCOUNT):
        raise RegistryError(f"provider {row.id!r}: token_url belongs to auth {Auth.GOOGLE_SERVICE_ACCOUNT.value!r}")
    if row.token_url:
        try:
            safe = not host_of(row.token_url).startswith("http://")
        except ValueError:
            safe = False
        if not safe:
            raise wrong(row.id, "token_url", "must be an https URL", row.token_url)


def _check_fields(row: Provider) -> None:
    """Every place in the URL and the hosts is a declared field, and every field has its place in the URL."""
    for name in (*places_of(row.base_url), *(place for host in row.hosts for place in places_of(host))):
        if name not in row.fields:
            raise RegistryError(f"provider {row.id!r}: {{{name}}} is no field; say what it is in fields")
    for name in row.fields:
        if name not in places_of(row.base_url):
            raise RegistryError(f"provider {row.id!r}: base_url has no place for the field {name!r}: {{{name}}}")


def _check_base_url(row: Provider) -> None:
    if "@" in row.base_url or "?" in row.base_url or "#" in row.base_url:
        raise RegistryError(f"provider {row.id!r}: base_url must have no user, query or fragment")
    try:
        host_of(row.base_url)
    except ValueError as error:
        raise wrong(row.id, "base_url", f"must be a URL with a host ({error})", row.base_url) from None
    if urlsplit(row.base_url).scheme not in _DEFAULT_PORTS:
        raise wrong(row.id, "base_url", "must begin with https:// or http://", row.base_url)


def _check_hosts(row: Provider) -> None:
    for host in row.hosts:
        if not _HOST.fullmatch(host):
            raise wrong(row.id, "hosts", 'must be lower-case hosts like "api.example.com" or "127.0.0.1:9200"', host)
    where = host_of(row.base_url)
    if where in row.hosts:
        return
    if where.startswith("http://"):
        raise RegistryError(
            f"provider {row.id!r}: base_url is http, and keys would leave this machine in clear; use https, or, in a"
            f' network that is trusted with them, list the host with its scheme: hosts = ["{where}"]'
        )
    raise RegistryError(
        f"provider {row.id!r}: base_url goes to {where!r}, which is not among hosts {list(row.hosts)!r};"
        " set hosts beside base_url"
    )


def _check_pattern(row: Provider) -> None:
    try:
        re.compile(row.key_pattern or "")
    except re.error as error:
        raise wrong(row.id, "key_pattern", f"must be a regular expression ({error})", row.key_pattern) from None


# --- all rows together ---------------------------------------------------------------------------------------------


def _check_together(rows: Sequence[Provider]) -> None:
    _refuse_shared("id", [(row.id, row.id) for row in rows])
    _refuse_shared("key name", [(setting_key_of(row.id), row.id) for row in rows])
    _refuse_shared("former id", [(former, row.id) for row in rows for former in row.former_ids])
    _refuse_shared("catalogue id", [(name, row.id) for row in rows for name in row.catalogue_ids])


def _refuse_shared(what: str, claims: Sequence[tuple[str, str]]) -> None:
    for name, count in Counter(name for name, _ in claims).items():
        if count > 1:
            rows = " and ".join(repr(row) for claimed, row in claims if claimed == name)
            raise RegistryError(f"the {what} {name!r} is claimed by more than one provider row: {rows}")


def _version(rows: Sequence[Provider]) -> str:
    text = repr([[repr(getattr(row, each.name)) for each in fields(row) if each.init] for row in rows])
    return hashlib.sha256(text.encode()).hexdigest()[:12]
