"""Repairs of one session, of all in one round, and incidents."""

from typing import Any
from urllib.parse import quote

from agent.cli import client, command, session

_UNWELL = ("degraded", "stuck", "corrupted", "not_found")
_STORY = ("operator", "repair", "repair_step", "repaired", "repair_over", "status", "verdict")


def add(commands: command.Commands) -> None:
    commands.one("recover", recover)
    commands.one("ensure-healthy", ensure_healthy, words=session.CONFIRM)
    commands.one("cleanup", cleanup, words=session.CONFIRM)
    commands.add("repair", repair, "all --dry-run")
    command.Commands(commands.add("incidents", incidents)).add("release", release, "sandbox")
    commands.one("health", health)


def recover(options: command.Options) -> int:
    """Repair an instance by every step that keeps its pairing."""
    return _ask(options, "recover")


def ensure_healthy(options: command.Options) -> int:
    """Repair an instance until it is connected or shows a code to scan.

    --yes=confirm: confirm that the pairing may end, and on an Evolution server the session's chats
    """
    return _ask(options, "ensure-healthy")


def cleanup(options: command.Options) -> int:
    """Retire an instance's session and show a new code; the trash keeps the old session, an
    Evolution server deletes it with its chats.

    --yes=confirm: confirm that the pairing may end, and on an Evolution server the session's chats
    """
    return _ask(options, "cleanup")


def _ask(options: command.Options, verb: str) -> int:
    body = options.given("confirm", "confirm_passkey")
    result = options.ask(f"POST {verb}", body, f"{verb} {options.id}: 5 min at most", wait=300)
    ending, sentence = result["ending"].replace("_", " "), result["sentence"].rstrip(".")
    done = f"is not well: {ending}: {sentence}; more: wa-agent why {options.id}"
    if result["healthy"]:
        done = "was repaired" if result["recovered"] else "is well"
        if result["cleaned"] or session.shows_code(options):
            old = "; what this machine had of it: wa-agent trash list" * result["cleaned"]
            done = f"shows a code to scan: wa-agent qr {options.id} --watch{old}"
    return options.print(result, f"{options.id} {done}", good=result["healthy"])


def repair(options: command.Options) -> int:
    """Run one round of repairs; exit status 1 if a session is still unwell.

    id=all|ID: every instance, or one
    --dry-run: print the steps without doing them
    --debug: print each step to stderr
    """
    agent, every, one = options.client, options.id == "all", f"/api/instance/{options.id}"
    # Other machines repair theirs.
    own = (it for it in agent.instances() if it["should_run"] and "machine" not in it)
    instances = [*own] if every else [agent.get(one)]
    events = "/api/events" if every else f"{one}/events"
    unwell = [it for it in instances if it["should_run"] and _is_unwell(it)]
    newest = agent.get(events, limit=1)["events"] if options.debug else []
    from concurrent.futures import ThreadPoolExecutor  # every other command starts without it

    doing = f"repairing, 5 min at most for each: {'; '.join(map(_state, unwell))}"
    with options.progress(doing if unwell else ""), ThreadPoolExecutor(4) as pool:
        rows = [*pool.map(lambda it: _repair(options, it), unwell)]
    if options.debug:
        query = {"limit": 1000, "after": newest[0]["cursor"] if newest else 0, "kind": _STORY}
        for event in agent.get(events, **query)["events"]:
            line = f"[{event['instance']}] {event['kind']}: {event['sentence']}"
            command.say(f"{command.moment(event['time'])} {line}")
    columns = {"ID": "id", "HEALTH": "verdict", "WHY": "sentence", "RESULT": "result"}
    told = (_state(it) for it in instances if it["connection_status"] != "CONNECTED")
    options.print_rows(rows, columns, command.clean("; ".join(["nothing needs a repair", *told])))
    return 0 if all(row["good"] for row in rows) else 1


def _is_unwell(instance: dict[str, Any]) -> bool:
    """True also where no step of a repair helps."""
    waits = session.needs_person(instance) or instance["reason"] in ("temporary_ban", "disk_full")
    return waits or instance["health"]["verdict"] in _UNWELL


def _state(instance: dict[str, Any]) -> str:
    return f"{instance['id']} is {instance['connection_status']}, {instance['sentence']}"


def _repair(options: command.Options, instance: dict[str, Any]) -> dict[str, Any]:
    """Ask the agent to repair it. With --dry-run name the steps that the agent would try: no step
    may end a pairing, so those that do are named only if the session has none."""
    id, health = instance["id"], instance["health"]
    row = {"id": id, "verdict": health["verdict"], "sentence": health["sentence"], "steps": []}
    if health["verdict"] not in _UNWELL:
        until = f"it waits until {command.moment(instance['next_attempt'])}"
        who = until if instance["next_attempt"] else "a person must act"
        return {**row, "result": f"no step helps: {who}", "good": False}
    if options.dry_run:
        from agent.core.recovery.ladder import ENDING_STEPS, LADDERS, trouble_of

        ladder = LADDERS[trouble_of(health["reason"])]
        steps = [step.value for step in ladder if not (instance["paired"] and step in ENDING_STEPS)]
        return {**row, "result": f"would try: {', '.join(steps)}", "good": True, "steps": steps}
    try:
        result = options.client.request("POST", f"/api/instance/{id}/recover?wait=300")
    except client.AgentSaidNo as error:
        return {**row, "result": str(error), "good": False}
    words = result["ending"].replace("_", " ") or "well"
    return {**row, "result": words, "good": result["healthy"]}


def incidents(options: command.Options) -> int:
    """Show failures that many instances have in common."""
    columns = {"GROUP": "group", "SINCE": "since", "WHAT": "sentence", "FIRST TO TRY": "canary"}
    return options.print_list("/api/incidents", {**columns, "TRIES": "tries"}, "no incidents")


def release(options: command.Options) -> int:
    """Let the members of an incident try again.

    GROUP: as `incidents` shows it
    """
    path, done = f"/api/incidents/{quote(options.group)}/release", "{released} is released"
    return options.do(f"POST {path}", f"{done}: its instances try again")


def health(options: command.Options) -> int:
    """Check an instance now; exit status 1 when it is not well."""
    health = options.ask("POST health", wait=300)
    line = f"{options.id}  {health['verdict']}: {health['sentence']}"
    return options.print(health, command.clean(line), good=health["healthy"])
