"""The one door to the database: URL, engine, transactions, and the translation of the driver's errors.

Owns how SQLite and PostgreSQL are made to behave alike. Every read and write of the keystore is one `async with` on
this door, closed before anything else is awaited. Must not know tables, tenants or keys.
"""

import asyncio
import contextlib
import logging
import os
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote
from weakref import WeakSet

from sqlalchemy import DDL, URL, MetaData, Table, event, func, make_url, select, text
from sqlalchemy.exc import (
    ArgumentError,
    DataError,
    DBAPIError,
    IntegrityError,
    OperationalError,
    ProgrammingError,
    SQLAlchemyError,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from keystore.errors import DatabaseUnavailable, KeystoreError, ValueRefused
from keystore.sqlite import BEGIN, BUSY_S, sqlite_engine

_PAUSE_S: Final = 0.12
_WAL_TRIES: Final = 8
_CONNECT_S: Final = 5.0  # a database that does not answer is said to be down after this
COMMAND_S: Final = 15.0
_CLOSING_S: Final = 2.0  # for connections to end in order
_LOG_NAME: Final = "wardgate"
_LIBPQ: Final = {"sslmode": "ssl", "connect_timeout": "timeout"}
_SETTINGS: Final = ("application_name", "options")
OWN_URL: Final = "WARDGATE_DATABASE_URL"  # the setting that names the keystore's own database
_DRIVERS: Final = {
    "sqlite": "sqlite+aiosqlite",
    "sqlite+aiosqlite": "sqlite+aiosqlite",
    "postgres": "postgresql+asyncpg",
    "postgresql": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}


class Lock(IntEnum):
    """What only one process at a time may do: the numbers of PostgreSQL's advisory locks."""

    SCHEMA = 0x77670001
    ROOT_KEYS = 0x77670002
    TENANTS = 0x77670003
    CHANGES = 0x77670004
    AUDIT = 0x77670005
    IMPORT = 0x77670006
    PRICES = 0x77670007
    LEDGER = 0x77670008
    BUDGETS = 0x77670009


class Database:
    """An engine with two ways in: `read()` and `write()`."""

    def __init__(self, database_url: str, *, command_s: float | None = COMMAND_S) -> None:
        """`command_s` bounds each statement on PostgreSQL; None lets it take what it takes."""
        self._url = parse_url(database_url)
        self.name = describe(self._url)
        self.path = sqlite_path(self._url)
        self.is_sqlite = self._url.get_backend_name() == "sqlite"
        self.writes = 0  # transactions of this process that may have written
        self.told = 0  # of these, those that may have changed what is remembered
        self._engine = _engine(self._url, command_s)
        self._is_cut = False
        self._open: WeakSet[Any] = WeakSet()  # PostgreSQL's connections, whoever has them
        if not self.is_sqlite:
            event.listen(self._engine.sync_engine, "connect", self._connected)
        self._writer = self._engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})

    def is_at(self, database_url: str) -> bool:
        """Whether this URL leads to the same database, as far as the URL tells."""
        other = parse_url(database_url)
        path = sqlite_path(other)
        return path.resolve() == self.path.resolve() if path and self.path else other == self._url

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction for reading. DatabaseUnavailable when the database fails."""
        with self._translated():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def write(self, *, lock: Lock | None = None, told: bool = True) -> AsyncIterator[AsyncConnection]:
        """A connection in a transaction for writing, committed at the end, alone among the holders of `lock`; on SQLite
        a writer is always alone. One that is not `told` changes nothing that anybody remembers. IntegrityError passes;
        other failures are DatabaseUnavailable, ValueRefused among them when a value is what the database does not take.
        """
        with self._translated():
            async with self._writer.begin() as connection:
                if lock and not self.is_sqlite:
                    await connection.execute(select(func.pg_advisory_xact_lock(lock.value)))
                yield connection
            self.writes += 1
            self.told += told

    async def use_wal(self) -> None:
        """Have SQLite keep a write-ahead log: readers never wait for a writer. Stays with the file."""
        if self.is_sqlite:
            with self._translated():
                for left in range(_WAL_TRIES)[::-1]:
                    if await self._wal(last=not left):
                        return
                    await asyncio.sleep(_PAUSE_S)

    async def _wal(self, *, last: bool) -> bool:
        """False while another process makes a new file ready, where SQLite does not wait by itself."""
        async with self._engine.execution_options(**{BEGIN: None}).connect() as connection:
            try:
                await connection.execute(text("PRAGMA journal_mode=WAL"))
            except OperationalError as error:
                if last or "locked" not in str(error.orig):
                    raise
                return False
        return True

    async def let_others_write(self) -> None:
        """A pause between many transactions: SQLite has no queue of writers, and one that waits looks every 0.1 s."""
        if self.is_sqlite:
            await asyncio.sleep(_PAUSE_S)

    async def rewrite(self, table: str) -> bool:
        """Rewrite the file (SQLite) or the table (PostgreSQL) so that nothing deleted is left in it. False when
        SQLite's log could not be emptied because another process reads it."""
        option = {BEGIN: None} if self.is_sqlite else {"isolation_level": "AUTOCOMMIT"}
        with self._translated():
            async with self._engine.execution_options(**option).connect() as connection:
                if not self.is_sqlite:
                    rewriting = DDL("VACUUM FULL %(table)s")  # type: ignore[no-untyped-call]
                    await connection.execute(rewriting.against(Table(table, MetaData())))
                    return True
                await connection.execute(text("PRAGMA secure_delete=ON"))
                await connection.execute(text("VACUUM"))
                busy = (await connection.execute(text("PRAGMA wal_checkpoint(TRUNCATE)"))).one()[0]
                return not busy

    def plain_connection(self) -> sqlite3.Connection:
        """A connection of its own to an SQLite file, for small reads without a thread."""
        (name,), options = self._url.get_dialect()().create_connect_args(self._url)
        try:
            return sqlite3.connect(name, uri=bool(options.get("uri")), timeout=0.05, isolation_level=None)
        except sqlite3.Error as error:
            raise DatabaseUnavailable(f"{self.name} {_what_happened(error)}") from error

    @asynccontextmanager
    async def listening(self, channel: str, heard: Callable[[], None]) -> AsyncIterator[None]:
        """Have `heard` called for each notification on a channel of PostgreSQL. DatabaseUnavailable when the
        connection cannot be made; one that breaks later is noticed by whoever asks something."""

        def told(_connection: object, _process: int, _channel: str, _payload: str) -> None:
            heard()

        with self._translated():
            async with self._engine.connect() as connection:
                driver: Any = (await connection.get_raw_connection()).driver_connection
                await driver.add_listener(channel, told)
                try:
                    yield
                finally:
                    with contextlib.suppress(Exception):  # the connection may be the thing that broke
                        await driver.remove_listener(channel, told)

    async def ping(self) -> None:
        """One round trip. DatabaseUnavailable when there is no answer."""
        async with self.read() as connection:
            await connection.execute(text("SELECT 1"))

    def cut(self) -> None:
        """Break off every connection to PostgreSQL now, and make no other: what waits for an answer fails at once,
        DatabaseUnavailable, and so does what is asked from here on."""
        self._is_cut = True
        for driver in list(self._open):
            driver.terminate()

    def _connected(self, connection: Any, _record: object) -> None:
        self._open.add(connection.driver_connection)

    async def close(self) -> None:
        """Close every connection; those to a PostgreSQL that does not answer are broken off soon."""
        closing = asyncio.ensure_future(self._engine.dispose())
        await asyncio.wait({closing}, timeout=None if self.is_sqlite else _CLOSING_S)
        self.cut()
        await closing

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._is_cut:
            raise DatabaseUnavailable(f"{self.name} was closed")
        try:
            yield
        except IntegrityError:
            raise
        except (ValueError, OverflowError) as error:  # a stored value that the driver cannot turn into Python's
            kind = type(error).__name__
            raise DatabaseUnavailable(f"{self.name} holds a value that cannot be read ({kind})") from _emptied(error)
        except (SQLAlchemyError, OSError, TypeError) as error:
            if isinstance(error, TypeError) and "connect()" not in str(error):
                raise
            failed = ValueRefused if _is_of_a_value(error) else DatabaseUnavailable
            raise failed(f"{self.name} {_what_happened(error)}") from error


def make_room(database_url: str, *, create: bool, setting: str = OWN_URL) -> None:
    """Have a SQLite database's file there and openable, made with mode 0600 when `create`; its directory is made too
    when it stands directly in the working directory. DatabaseUnavailable says what is wrong, and names the `setting`
    that the URL comes from. Does nothing for PostgreSQL."""
    url = parse_url(database_url, setting)
    path = sqlite_path(url)
    if path is None:
        return
    if not path.exists():
        if not create:
            how = "`wardgate migrate` makes it" if setting == OWN_URL else f"see {setting}"
            raise DatabaseUnavailable(f"there is no {describe(url)}; {how}")
        make_parent(path, what=describe(url))
        _make_file(path, what=describe(url))
    _try_file(url)


def _make_file(path: Path, *, what: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    except OSError as error:
        raise DatabaseUnavailable(f"{what} cannot be made: {error.strerror}") from error


def _try_file(url: URL) -> None:
    """Open the file once without a thread: aiosqlite's outlives an event loop that ends right after a failed start."""
    (name,), options = url.get_dialect()().create_connect_args(url)
    try:
        with closing(sqlite3.connect(name, uri=bool(options.get("uri")), timeout=BUSY_S)) as connection:
            connection.execute("PRAGMA schema_version").fetchone()
    except sqlite3.Error as error:
        raise DatabaseUnavailable(f"{describe(url)} {_what_happened(error)}") from error


def make_parent(path: Path, *, what: str, error: type[KeystoreError] = DatabaseUnavailable) -> None:
    """Make the directory of `path` when it stands directly in the working directory; any other must be there, else
    `error`."""
    parent = path.parent
    if parent.is_dir():
        return
    if parent.absolute().parent != Path.cwd():
        raise error(f"{what} cannot be made: there is no directory {parent}")
    try:
        parent.mkdir(mode=0o700, exist_ok=True)
    except OSError as failed:
        raise error(f"{what} cannot be made: {parent}: {failed.strerror}") from failed


# --- URLs ----------------------------------------------------------------------------------------------------------


def parse_url(database_url: str, setting: str = OWN_URL) -> URL:
    """The URL with the driver that we use; `postgres://` and libpq's `sslmode` are understood. The message of a bad one
    never quotes it, for it may hold a password."""
    try:
        if not database_url.isprintable():
            raise ValueError
        url = make_url(database_url.strip())
    except (ArgumentError, ValueError):
        raise DatabaseUnavailable(f"the database URL is not a URL; see {setting}") from None
    driver = _DRIVERS.get(url.drivername)
    if driver is None:
        raise DatabaseUnavailable(
            f'the database URL begins with "{url.drivername}"; Wardgate knows sqlite+aiosqlite:// and postgresql://'
        )
    url = url.set(drivername=driver)
    if driver.startswith("sqlite") and url.database in (None, "", ":memory:"):
        raise DatabaseUnavailable("an SQLite database needs a file: sqlite+aiosqlite:///var/wardgate.db")
    return _asyncpg_words(url) if driver.startswith("postgresql") else url


def _asyncpg_words(url: URL) -> URL:
    """libpq's parameters by asyncpg's names; what has none there is refused when connecting."""
    query = {_LIBPQ.get(name, name): value for name, value in url.query.items()}
    return url.set(query=query)


def _session_settings(url: URL) -> dict[str, str]:
    """What the session sets: `application_name`, and each `-c name=value` of `options`."""
    given = {"application_name": "wardgate"} | {name: str(url.query[name]) for name in _SETTINGS if name in url.query}
    for name, value in re.findall(r"-c\s*([A-Za-z_.]+)=(\S*)", given.pop("options", "")):
        given[name] = value
    return given


def sqlite_path(url: URL) -> Path | None:
    """The file of an SQLite URL, also when it is written as `file:` URI; None for PostgreSQL."""
    if url.get_backend_name() != "sqlite" or url.database is None:
        return None
    name = url.database
    return Path(unquote(name.removeprefix("file:"))) if name.startswith("file:") else Path(name)


def describe(url: URL) -> str:
    """The database in words, without user or password."""
    path = sqlite_path(url)
    if path is not None:
        return f'SQLite database "{path}"'
    host = url.host or url.query.get("host") or "localhost"
    return f'PostgreSQL database "{url.database or url.username or ""}" at {host}'


# --- engines -------------------------------------------------------------------------------------------------------


def _engine(url: URL, command_s: float | None) -> AsyncEngine:
    logging.getLogger(f"sqlalchemy.engine.Engine.{_LOG_NAME}").setLevel(logging.WARNING)  # DEBUG shows rows: plain keys
    try:
        if url.get_backend_name() == "sqlite":
            return sqlite_engine(url, logging_name=_LOG_NAME, pool_timeout=_CONNECT_S)
        engine = create_async_engine(
            url.difference_update_query(_SETTINGS),
            hide_parameters=True,
            logging_name=_LOG_NAME,
            pool_pre_ping=True,
            pool_timeout=_CONNECT_S,
            connect_args={
                "timeout": _CONNECT_S,
                "command_timeout": command_s,
                "server_settings": _session_settings(url),
            },
        )
        event.listen(engine.sync_engine, "connect", _on_connect_postgres)
        return engine
    except (ArgumentError, TypeError, ValueError):
        raise DatabaseUnavailable(f"{describe(url)}: the URL has a parameter that is not understood") from None


def _on_connect_postgres(connection: Any, _record: object) -> None:
    """Whatever the role or the database was set to: each statement sees what was committed before it, and what is
    committed is on the disk, for the journal that it came from is deleted then."""
    cursor = connection.cursor()
    cursor.execute(
        "SELECT set_config('default_transaction_isolation', 'read committed', false),"
        " CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', false) END"
    )
    cursor.close()
    connection.commit()


# --- the driver's errors -------------------------------------------------------------------------------------------

_SENTENCES: Final = (  # words of the drivers -> what they mean
    (("readonly database", "read-only transaction"), "is read-only; Wardgate needs to write"),
    (("must be owner of",), "does not let this role make the ledger's months: another owns its table (docs/ledger.md)"),
    (("permission denied for",), "does not let this role read and write Wardgate's tables, or read tenant_settings"),
    (("file is not a database", "malformed"), "is not a database, or is damaged"),
    (("unable to open",), "cannot be opened; is the path right, and may this user read and write there?"),
    (("database is locked",), "is locked by another process"),
    (("password authentication", "no password supplied"), "refuses this user or password"),
    (("does not exist",), "does not exist, or lacks a table or role that is needed"),
)


def _emptied(error: Exception) -> Exception:
    """The error without its arguments: a decoder quotes what it could not decode, which may be a key."""
    error.args = ()
    if isinstance(error, UnicodeDecodeError):
        error.object = b""
    elif isinstance(error, UnicodeEncodeError):
        error.object = ""
    return error


def _is_of_a_value(error: BaseException) -> bool:
    """Whether the same would fail at any time: PostgreSQL's classes "data exception" and "program limit exceeded"."""
    state = getattr(getattr(error, "orig", None), "sqlstate", None) or ""
    return isinstance(error, DataError) or state[:2] in ("22", "54")


def _what_happened(error: BaseException) -> str:
    words = str(error.orig if isinstance(error, DBAPIError) else error)
    if unknown := re.search(r"unexpected keyword argument '(\w+)'", words):
        return f"cannot be opened: its URL has a parameter {unknown[1]!r} that is not understood"
    for signs, sentence in _SENTENCES:
        if any(sign in words for sign in signs):
            return sentence
    verb = "failed" if isinstance(error, ProgrammingError) or _is_of_a_value(error) else "does not answer"
    return f"{verb} ({type(getattr(error, 'orig', None) or error).__name__})"
