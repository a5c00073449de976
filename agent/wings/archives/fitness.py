"""What an import refuses to put in place, by the archive's manifest and the files that came."""

from agent.core.model import InstanceId, SessionFiles
from agent.engines.catalog import file_rules, find_engine
from agent.errors import ConfigError, InvalidRequest, Refused
from agent.supervise.facts import Facts
from agent.vault.archives.unpack import Arrived
from agent.vault.copies.manifest import Manifest
from agent.vault.copies.snapshots import Snapshot


def refuse_unknown_engine(manifest: Manifest) -> None:
    try:
        find_engine(manifest.engine)
    except ConfigError as error:
        raise InvalidRequest(str(error), field="engine", code=error.code) from None


def refuse_unfit(id: InstanceId, arrived: Arrived) -> None:
    """A paired session must be whole, of the account that its manifest names, and able to read."""
    manifest, account = arrived.manifest, arrived.linked.account
    if not manifest.paired:
        return
    problem, code = "", ""
    paths = [file.path for file in manifest.listing.files]
    if arrived.state is not SessionFiles.WHOLE:
        problem = f"the archive is whole, but its session is {arrived.state} {arrived.problem}"
        code = "not_good"
    elif account and manifest.account and account != manifest.account:
        problem = f"its files are of account {account}, its manifest names {manifest.account}"
        code = "other_account"
    elif lacking := file_rules(manifest.engine).lacks(paths):
        problem, code = lacking, "no_pre_keys"
    if problem:
        raise InvalidRequest(f"cannot import {id}: {problem}".rstrip(), field="archive", code=code)


def refuse_unfit_export(id: InstanceId, snapshot: Snapshot) -> None:
    """No import would take it, and a person would find that out on the other machine."""
    manifest = snapshot.manifest
    if manifest is None or (manifest.paired and manifest.state is not SessionFiles.WHOLE):
        state = snapshot.problem if manifest is None else manifest.state.value
        raise Refused(
            f"cannot export {id}: the session in snapshot {snapshot.name} is {state}, and no import"
            f" takes it; `wa-agent snapshots {id}` lists whole ones, which `wa-agent export {id}"
            " FILE --snapshot NAME` exports",
            code="not_good",
        )


def refuse_other_account(old: Facts, manifest: Manifest) -> None:
    """Programs address an instance by its id: it stays the account that it is."""
    was, comes = old.record.account, manifest.account
    if old.record.paired and was and comes and was != comes:
        raise Refused(
            f"cannot import {old.id}: the session is of account {comes}, the instance is {was};"
            f" import it under another id, or delete {old.id} first",
            field="id",
            code="other_account",
        )
