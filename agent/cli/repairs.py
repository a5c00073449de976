"""Repairs by hand: of one instance, of all in one round; incidents; `health` checks one now."""

from collections.abc import Iterable
from functools import partial
from typing import Any
from urllib.parse import quote

from agent.cli.client import AgentSaidNo, Client
from agent.cli.command import Commands, Options, Words, clean, moment, say
from agent.cli.session import CONFIRM
from agent.core.model import ConnectionStatus, Health, HealthVerdict, parse_instance_id
from agent.core.recovery.ladder import LADDERS, UNPAIRING, trouble_of

_UNWELL = ("degraded", "stuck", "corrupted", "not_found")
_STORY = ("operator", "repair", "repair_step", "repaired", "repair_over", "status", "verdict")
_MAY_END: Words = {
    "--yes=confirm": "confirm that the pairing may end, and on an Evolution server the session's"
    " chats",
    **CONFIRM,
}
_ASKED = {
    "recover": "repair an instance by every step that keeps its pairing",
    "ensure-healthy": "repair an instance until it is connected or shows a code to scan",
    "cleanup": "retire an instance's session and show a new code; the trash keeps the old session,"
    " an Evolution server deletes it with its chats",
}


def add(commands: Commands) -> None:
    for name, summary in _ASKED.items():
        words = {} if name == "recover" else _MAY_END
        commands.one(name, ask, summary=summary, words=words, verb=name)
    words = {
        "id=all|ID": ("every instance, or one", {"type": _all_or_one}),
        "--dry-run": "print the steps without doing them",
        "--debug": "print each step to stderr",
    }
    commands.add("repair", repair, "all --dry-run", words=words)
    among = Commands(commands.add("incidents", incidents))
    words = {"GROUP": "as `incidents` shows it"}
    among.add("release", release, "sandbox", words=words)
    commands.one("health", health)


def _all_or_one(text: str) -> str:
    return text if text == "all" else parse_instance_id(text)


def ask(options: Options) -> int:
    body, doing = options.given("confirm", "confirm_passkey"), f"{options.verb} {options.id}"
    result = options.ask(f"POST {options.verb}", body, doing, wait=300)
    ending = result["ending"].replace("_", " ")
    done = f"is not well: {ending}: {result['sentence']}; more: wa-agent why {options.id}"
    if result["healthy"]:
        done = "was repaired" if result["recovered"] else "is well"
        done = "shows a new code to scan" if result["cleaned"] else done
    return options.print(result, f"{options.id} {done}", good=result["healthy"])


def repair(options: Options) -> int:
    """Run one round of repairs; exit status 1 if a session is still unwell."""
    client = options.client
    instances: Iterable[dict[str, Any]] = client.instances()
    events = "/api/events"
    if options.id != "all":
        instances = [client.get(f"/api/instance/{options.id}")]
        events = f"/api/instance/{options.id}/events"
    unwell = [it for it in instances if it["should_run"] and it["health"]["verdict"] in _UNWELL]
    work = _dry_run if options.dry_run else partial(_repair, client)
    newest = client.get(events, limit=1)["events"] if options.debug else []
    from concurrent.futures import ThreadPoolExecutor  # every other command starts without it

    with options.progress(f"repairing {len(unwell)} instances"), ThreadPoolExecutor(4) as pool:
        done = [*pool.map(work, unwell)]
    if options.debug:
        query = {"limit": 1000, "after": newest[0]["cursor"] if newest else 0, "kind": _STORY}
        for event in client.get(events, **query)["events"]:
            line = f"[{event['instance']}] {event['kind']}: {event['sentence']}"
            say(f"{moment(event['time'])} {line}")
    rows = [
        {"id": it["id"], **{name: it["health"][name] for name in ("verdict", "sentence")}, **did}
        for it, did in zip(unwell, done, strict=True)
    ]
    columns = {"ID": "id", "HEALTH": "verdict", "WHY": "sentence", "RESULT": "result"}
    options.print_rows(rows, columns, nothing="nothing needs a repair")
    return 0 if all(row["good"] for row in rows) else 1


def _dry_run(instance: dict[str, Any]) -> dict[str, Any]:
    """The ladder for this instance; steps that end a pairing only where it has none."""
    health = instance["health"]
    state = ConnectionStatus(health["state"])
    verdict = HealthVerdict(Health(health["verdict"]), state, health["reason"], health["sentence"])
    ladder = LADDERS[trouble_of(verdict)]
    steps = [step.value for step in ladder if not (instance["paired"] and step in UNPAIRING)]
    return {"result": f"would try: {', '.join(steps)}", "good": True, "steps": steps}


def _repair(client: Client, instance: dict[str, Any]) -> dict[str, Any]:
    try:
        result = client.post(f"/api/instance/{instance['id']}/recover?wait=300")
    except AgentSaidNo as error:
        return {"result": str(error), "good": False, "steps": []}
    words = result["ending"].replace("_", " ") or "well"
    return {"result": words, "good": result["healthy"], "steps": []}


def incidents(options: Options) -> int:
    """Show failures that many instances have in common."""
    columns = {"GROUP": "group", "SINCE": "since", "WHAT": "sentence", "FIRST TO TRY": "canary"}
    return options.print_list("/api/incidents", {**columns, "TRIES": "tries"}, "no incidents")


def release(options: Options) -> int:
    """Let the members of an incident try again."""
    path, done = f"/api/incidents/{quote(options.group)}/release", "{released} is released"
    return options.do(f"POST {path}", f"{done}: its instances try again")


def health(options: Options) -> int:
    """Check an instance now; exit status 1 when it is not well."""
    health = options.ask("POST health", wait=300)
    line = f"{options.id}  {health['verdict']}: {health['sentence']}"
    return options.print(health, clean(line), good=health["healthy"])
