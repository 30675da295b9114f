"""Snapshots of this machine without a server: implements `core/sandboxes.py` for the CLI."""

from datetime import UTC, datetime
from pathlib import Path

from wrennd.core.config import Config
from wrennd.core.errors import Error, WrongState
from wrennd.core.ids import ID_PREFIX
from wrennd.core.sandboxes import ListedGeneration, ListedTemplate, Shown
from wrennd.core.states import State
from wrennd.core.timings import Timings
from wrennd.host import record, templates
from wrennd.host.checkpoint import facts_of
from wrennd.host.lifecycle import Lifecycle
from wrennd.host.local import LocalSandboxes, existing, require_root
from wrennd.host.record import Journal
from wrennd.host.warm import has_snapshot
from wrennd.snapshot.description import describe
from wrennd.snapshot.reader import Snapshot, open_snapshot
from wrennd.snapshot.verify import verify
from wrennd.storage.layout import Layout


def listed(config: Config) -> list[ListedTemplate]:
    """All templates; looking makes no data directory."""
    require_root()
    if Layout.find(config.data_dir) is None:
        return []
    return LocalSnapshots(existing(config)).list()


class LocalSnapshots:
    """Templates, and the generations of the sandboxes that it is given."""

    def __init__(self, sandboxes: LocalSandboxes) -> None:
        self._sandboxes = sandboxes
        self._layout = sandboxes.layout

    def create(
        self, sandbox_id: str, name: str, timings: Timings, *, ends_paused: bool = False
    ) -> None:
        templates.check_is_free(self._layout, name)
        with self._sandboxes.operation(sandbox_id) as journal:
            self.create_held(journal, name, timings, ends_paused=ends_paused)

    def create_held(
        self,
        journal: Journal,
        name: str,
        timings: Timings,
        *,
        ends_paused: bool = False,
        overwrite: bool = False,
    ) -> None:
        """As `create`, of a sandbox whose lock the caller holds.

        overwrite: a template that has the name loses it, once the new one is complete.
        """
        templates.check_is_free(self._layout, name, overwrite=overwrite)
        lifecycle = Lifecycle(self._layout, self._sandboxes.network, journal)
        if journal.record.state is State.PAUSED:
            snapshot = lifecycle.newest()
        elif ends_paused:
            lifecycle.pause(timings)
            snapshot = lifecycle.newest()
        else:
            snapshot = lifecycle.snapshot(timings)
        with timings.phase("share"):
            facts = facts_of(journal.record, name)
            templates.add(self._layout, name, snapshot, facts, overwrite=overwrite)

    def list(self) -> list[ListedTemplate]:
        return [self._listed(template) for template in templates.every(self._layout)]

    def get(self, name: str) -> ListedTemplate:
        """Errors: NotFound, InvalidInput."""
        return self._listed(templates.get(self._layout, name))

    def remove(self, name: str) -> None:
        templates.remove(self._layout, name)

    def show(self, what: str) -> Shown:
        snapshot = open_snapshot(self._directory(what))
        found = describe(snapshot, datetime.now(UTC))
        facts = snapshot.manifest.facts
        return Shown(
            name=facts.name or facts.sandbox,
            vcpus=facts.vcpus,
            mem_mib=facts.mem_mib,
            created=snapshot.manifest.created,
            pages=found.pages,
            zero_pages=found.zero_pages,
            disk_bytes=found.disk_bytes,
            own_bytes=found.own_bytes,
            generations=tuple(
                ListedGeneration(
                    build=row.build,
                    age_s=row.age_s,
                    disk_bytes=row.disk_bytes,
                    pages=row.pages,
                    data_pages=row.stored_pages,
                    zero_pages=row.zero_pages,
                    shared_by=row.shared_by,
                )
                for row in found.rows
            ),
        )

    def verify(self, what: str) -> tuple[str, ...]:
        return tuple(str(problem) for problem in verify(self._directory(what)))

    def open(self, what: str) -> Snapshot:
        """A template, or a sandbox's newest snapshot. Errors: NotFound, WrongState without one."""
        return open_snapshot(self._directory(what, has_to_be_own=True))

    def _directory(self, what: str, *, has_to_be_own: bool = False) -> Path:
        """Of a template's name or of a sandbox's id: a name goes first.

        has_to_be_own: what it only has of a warm image is none.
        """
        template = templates.find(self._layout, what)
        if template is not None:
            return template.directory
        if not ID_PREFIX.fullmatch(what):
            templates.get(self._layout, what)
        paths = self._layout.sandbox(self._sandboxes.match(what))
        found = record.load(paths)
        if not (has_snapshot(paths, found) if has_to_be_own else found.generation):
            raise WrongState(
                f"sandbox {found.id} has no snapshot", hint=f"wrenn pause {found.id} makes one"
            )
        return paths.generation(found.generation)

    def _listed(self, template: templates.Template) -> ListedTemplate:
        try:
            snapshot = open_snapshot(template.directory)
        except Error as error:
            return _broken(template.name, str(error))
        facts = snapshot.manifest.facts
        found = describe(snapshot, datetime.now(UTC))
        return ListedTemplate(
            name=template.name,
            template=facts.template,
            sandbox=facts.sandbox,
            tier=facts.tier,
            vcpus=facts.vcpus,
            mem_mib=facts.mem_mib,
            created=snapshot.manifest.created,
            disk_bytes=found.disk_bytes,
            own_bytes=found.own_bytes,
        )


def _broken(name: str, why: str) -> ListedTemplate:
    return ListedTemplate(
        name=name,
        template="",
        sandbox="",
        tier="",
        vcpus=0,
        mem_mib=0,
        created="",
        disk_bytes=0,
        own_bytes=0,
        error=why,
    )
