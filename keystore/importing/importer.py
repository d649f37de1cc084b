"""The door of the import: plan, apply, verify, scrub, list.

Owns the order of the steps and the state of an import (running, applied, verified, scrubbed). Must not know SQL.
"""

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

from keystore.clock import Clock, Random
from keystore.engine import Database, Lock
from keystore.errors import ImportRefused, TenantError, UnknownPlan
from keystore.holdings import HoldingReader
from keystore.importing import journal
from keystore.importing.apply import Applier, batches
from keystore.importing.journal import ImportInfo, Noted
from keystore.importing.manifest import Manifest, read_manifest, write_manifest
from keystore.importing.owners import Lacking, NewTenant, Owners
from keystore.importing.scrub import Scrubbed, Scrubber
from keystore.importing.source import Source, TenantTable, open_source
from keystore.importing.survey import Judge, Marks, Progress, Survey, conflicts, counted, survey
from keystore.importing.verify import Verified, Verifier
from keystore.providers import Registry
from keystore.resolve import known_names, provider_for_setting
from keystore.tenantkeys import TenantKeys
from keystore.tenants import Tenant, TenantStore

_ROUNDS: Final = 20  # a table that is edited faster than it is read is left as it is


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """Where the tenants are found, and whether those that lack are made (on `plan`, unless the source tells theirs)."""

    tenants: TenantTable | None = None
    create_tenants: bool = False
    plan: str | None = None

    def to_json(self) -> dict[str, object]:
        return asdict(self)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "ImportOptions":
        where = stored.get("tenants")
        return cls(TenantTable(**where) if where else None, bool(stored.get("create_tenants")), stored.get("plan"))


@dataclass(frozen=True, slots=True)
class Planned:
    """What an import would do. `no_tenant` are ids of secrets whose tenant is not here and would not be made."""

    import_id: str
    source: str
    rows: int
    counts: Mapping[str, Mapping[str, int]]
    conflicts: Sequence[Mapping[str, object]]
    create: Sequence[NewTenant]
    no_tenant: Sequence[str]
    unknown_plans: Mapping[str, int]
    ambiguous_tenants: Sequence[str]


@dataclass(frozen=True, slots=True)
class Applied:
    """What an import did: `taken` rows, `created` tenants and why others were `refused`; `elsewhere` rows were done by
    another run meanwhile, `edited` ones were changed under it and are still to be done; `since_plan` rows are not as in
    the manifest."""

    plan: Planned
    taken: int
    elsewhere: int
    edited: int
    created: Sequence[str]
    refused: Sequence[str]
    since_plan: int | None


class Importer:
    """Imports into one keystore."""

    def __init__(
        self,
        database: Database,
        keys: TenantKeys,
        reader: HoldingReader,
        registry: Registry,
        tenants: TenantStore,
        known_plans: Collection[str],
        *,
        now: Clock,
        random: Random,
    ) -> None:
        self._database = database
        self._keys = keys
        self._reader = reader
        self._registry = registry
        self._tenants = tenants
        self._known_plans = frozenset(known_plans)
        self._known_names = known_names(registry)
        self._now = now
        self._random = random

    async def plan(self, url: str | None, options: ImportOptions, manifest: Path | None, progress: Progress) -> Planned:
        """Judge every row and write the manifest; nothing else is written. ImportRefused says what cannot be read."""
        self._check(options)
        async with self._source(url) as source:
            found = await self._found(source)
            import_id = found.import_id if found else journal.new_import_id(self._random(16))
            options = _as_kept(options, found)
            seen = await survey(source, await self._judge(source, import_id, options), progress)
            create = (await self._lacking(source, options, seen.without_tenant())).create
            if create:
                as_if = await self._judge(source, import_id, options, create)
                seen = await survey(source, as_if, lambda *_: None)
            planned = await self._planned(source, import_id, options, seen, create)
        if manifest is not None:
            write_manifest(manifest, import_id, planned.source, seen.rows, planned.counts, self._now())
        return planned

    async def apply(
        self,
        url: str | None,
        options: ImportOptions,
        manifest: Path | None,
        *,
        batch: int,
        progress: Progress,
        remap: bool = False,
    ) -> Applied:
        """Take over what was not taken over yet. Ends at any point without harm; the next run goes on. The mapping of
        an earlier run is used on; another takes its place only with `remap`, else ImportRefused."""
        self._check(options)
        plan = read_manifest(manifest) if manifest else None
        async with self._source(url) as source:
            found = await self._found(source)
            options = _as_kept(options, found)
            await self._owners(source, options)  # a mapping that cannot be read is not kept
            _check_mapping(options, found, remap=remap)
            info = await self._begun(source, options, plan)
            created, refused = await self._create_tenants(source, info.import_id, options)
            counts: Counter[str] = Counter()
            for _ in range(_ROUNDS):
                judge = await self._judge(source, info.import_id, options)
                seen = await survey(source, judge, lambda *_: None)
                more, edited = await self._round(source, judge, info, seen, batch, progress)
                counts += more
                if not more and not edited:
                    break
            planned = await self._planned(source, info.import_id, options, seen)
            await self._finish(info, planned, news=bool(counts))
        strangers = sum(1 for row in seen.rows if row.row_mac not in plan.marks) if plan else None
        return Applied(planned, counts["taken"], counts["elsewhere"], edited, created, refused, strangers)

    async def verify(self, url: str | None, progress: Progress) -> Verified:
        """The gates; when all hold, the import is verified."""
        async with self._source(url) as source:
            info = await self._needed(source)
            judge = await self._judge(source, info.import_id, ImportOptions.from_json(info.options))
            seen = await survey(source, judge, progress)
            verifier = Verifier(self._database, self._keys, self._reader, self._registry, judge.marks, source.in_place)
            result = await verifier.run(seen, await self._journal(info.import_id), await self._tenants.list())
        state = "scrubbed" if info.state == "scrubbed" else "verified" if result.passed else "applied"
        async with self._database.write() as connection:
            await journal.set_state(connection, info.import_id, state, now=self._now())
        return result

    async def scrub(self, *, batch: int, progress: Progress) -> tuple[Scrubbed, Verified]:
        """Take the plain text out of our own database's table, and verify again. ImportRefused before `verify`."""
        async with self._source(None) as source:
            info = await self._needed(source)
            if info.state not in ("verified", "scrubbed"):
                raise ImportRefused("this import is not verified; `wardgate import verify` comes before the scrub")
            judge = await self._judge(source, info.import_id, ImportOptions.from_json(info.options))
            seen = await survey(source, judge, lambda *_: None)
            scrubber = Scrubber(self._database, source, self._keys, judge.marks, info.import_id, self._now)
            done = await scrubber.run(seen, await self._journal(info.import_id), batch, progress)
        async with self._database.write() as connection:
            await journal.set_state(connection, info.import_id, "scrubbed", now=self._now())
        return done, await self.verify(None, lambda *_: None)

    async def list(self) -> Sequence[ImportInfo]:
        """Every import, the oldest first."""
        return await journal.list_imports(self._database)

    # --- steps -----------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def _source(self, url: str | None) -> AsyncIterator[Source]:
        source = await open_source(self._database, url)
        try:
            yield source
        finally:
            await source.close()

    async def _found(self, source: Source) -> ImportInfo | None:
        async with self._database.read() as connection:
            return await journal.find_import(connection, source.name)

    async def _needed(self, source: Source) -> ImportInfo:
        found = await self._found(source)
        if found is None:
            raise ImportRefused("nothing was taken over from this table yet; `wardgate import apply` does it")
        return found

    async def _begun(self, source: Source, options: ImportOptions, plan: Manifest | None) -> ImportInfo:
        """The import of this source, noted as running; two operators who begin at once share it."""
        async with self._database.write(lock=Lock.IMPORT) as connection:
            found = await journal.find_import(connection, source.name)
            if plan is not None and (plan.source != source.name or (found and found.import_id != plan.import_id)):
                raise ImportRefused("this manifest is of another import; make a new one with `wardgate import plan`")
            if found is None:
                import_id = plan.import_id if plan else journal.new_import_id(self._random(16))
                await journal.begin(connection, import_id, source.name, in_place=source.in_place, now=self._now())
            else:
                import_id = found.import_id
            await journal.set_options(connection, import_id, options.to_json())
        return await self._needed(source)

    async def _judge(
        self, source: Source, import_id: str, options: ImportOptions, new: Sequence[NewTenant] = ()
    ) -> Judge:
        return Judge(
            Marks(self._keys.import_key(import_id)),
            await self._owners(source, options, new),
            self._known_names,
            self._keys.fingerprint,
        )

    async def _owners(self, source: Source, options: ImportOptions, new: Sequence[NewTenant] = ()) -> Owners:
        """Whose row is whose; `new` are tenants that count as if they were here."""
        rows = await source.tenants(options.tenants) if options.tenants else None
        made = [Tenant(one.id, one.slug, one.slug, one.plan, None, self._now()) for one in new]
        return Owners([*await self._tenants.list(), *made], rows, numbered=source.numbered_tenants)

    async def _lacking(self, source: Source, options: ImportOptions, ids: Sequence[str]) -> Lacking:
        owners = await self._owners(source, options)
        return owners.lacking(ids, self._known_plans, create=options.create_tenants, plan=options.plan)

    async def _planned(
        self, source: Source, import_id: str, options: ImportOptions, seen: Survey, create: Sequence[NewTenant] = ()
    ) -> Planned:
        """The table as it was `seen`, where the tenants of `create` counted as if they were here."""
        lacking = await self._lacking(source, options, seen.without_tenant())
        return Planned(
            import_id=import_id,
            source=source.name,
            rows=len(seen.rows),
            counts=counted(seen.rows),
            conflicts=conflicts(seen.groups),
            create=create,
            no_tenant=seen.without_tenant(),
            unknown_plans=lacking.unknown_plans,
            ambiguous_tenants=lacking.ambiguous,
        )

    async def _create_tenants(
        self, source: Source, import_id: str, options: ImportOptions
    ) -> tuple[Sequence[str], Sequence[str]]:
        """Make the tenants that lack; the slugs of those made, and why others were not."""
        created: list[str] = []
        refused: list[str] = []
        if not options.create_tenants:
            return created, refused
        seen = await survey(source, await self._judge(source, import_id, options), lambda *_: None)
        for new in (await self._lacking(source, options, seen.without_tenant())).create:
            try:
                created.append((await self._tenants.add(new.slug, new.plan, id=new.id)).slug)
            except TenantError as error:
                refused.append(str(error))
        return created, refused

    async def _round(
        self, source: Source, judge: Judge, info: ImportInfo, seen: Survey, size: int, progress: Progress
    ) -> tuple[Counter[str], int]:
        """Take over what is to do; what was done, and how many rows were edited meanwhile."""
        noted = await self._journal(info.import_id)
        owners_of = {name: provider_for_setting(name, self._registry) for name in self._known_names}
        applier = Applier(self._database, source, self._keys, judge, info.import_id, owners_of, self._now, self._random)
        groups = applier.todo(seen, noted)
        contents = {each.content_mac: each for each in noted}
        counts: Counter[str] = Counter()
        total, done = sum(map(len, groups)), 0
        for some in batches(groups, size):
            counts += await applier.batch(some, contents)
            done += sum(map(len, some))
            progress(done, total)
            await self._database.let_others_write()
        edited = counts.pop("edited", 0)
        return counts, edited

    async def _finish(self, info: ImportInfo, planned: Planned, *, news: bool) -> None:
        state = "applied" if news or info.state == "running" else info.state
        async with self._database.write() as connection:
            await journal.set_state(connection, info.import_id, state, now=self._now(), counts=planned.counts)

    async def _journal(self, import_id: str) -> Sequence[Noted]:
        async with self._database.read() as connection:
            return await journal.read(connection, import_id)

    def _check(self, options: ImportOptions) -> None:
        if options.plan is not None and options.plan not in self._known_plans:
            known = ", ".join(sorted(self._known_plans))
            raise UnknownPlan(f"there is no plan {options.plan!r} (plans: {known})")
        if options.create_tenants and not (options.plan or (options.tenants and options.tenants.plan)):
            raise ImportRefused("to make tenants, state their plan: --plan, or --tenant-plan-column of --tenants-table")


def _as_kept(options: ImportOptions, found: ImportInfo | None) -> ImportOptions:
    """The options with the mapping of the earlier run where none is given."""
    if options.tenants is not None or found is None:
        return options
    return replace(options, tenants=ImportOptions.from_json(found.options).tenants)


def _check_mapping(options: ImportOptions, found: ImportInfo | None, *, remap: bool) -> None:
    """A mapping takes the place of another only where that is said, and never once plain text was taken away."""
    kept = ImportOptions.from_json(found.options).tenants if found else None
    if kept is None or options.tenants == kept or found is None:
        return
    if found.state == "scrubbed":
        raise ImportRefused(f"this import is scrubbed; its tenants stay mapped by {kept.told}")
    if not remap:
        raise ImportRefused(f"this import maps its tenants by {kept.told}; say --remap to take another mapping")
