"""`wa-agent webhooks`: where they send events, how many wait, and a try by hand; and what doctor
says of each."""

from collections.abc import Iterator
from contextlib import suppress

from agent.cli import client, command
from agent.errors import ConfigError, WaError
from agent.webhooks.settings import webhooks_of

COLUMNS = {
    **{"NAME": "name", "URL": "url", "STATE": "state", "CIRCUIT": "circuit", "WAITING": "waiting"},
    **{"OLDEST": "oldest", "GIVEN UP": "dead", "LAST PROBLEM": "problem"},
}
_ONE = {"WEBHOOK": "the webhook's name"}


def add(commands: command.Commands) -> None:
    among = command.Commands(commands.add("webhooks", list_webhooks))
    among.add("test", test, "ops", _ONE)
    among.add("retry", retry, "ops", _ONE)


def list_webhooks(options: command.Options) -> int:
    """List the webhooks and their waiting events."""
    return options.print_list("/api/webhooks", COLUMNS, "agent.toml has no [[webhook]]")


def test(options: command.Options) -> int:
    """Send a test event now and print the answer; exit status 1 if it was refused."""
    trial = options.ask(f"POST /api/webhooks/{options.webhook}/test")
    reply = f"it answered {trial['status']}" if trial["status"] else command.clean(trial["problem"])
    said = f"it said: {command.clean(trial['said'])}" if trial["said"] else ""
    line = f"{'taken' if trial['delivered'] else 'not taken'}: {reply}, in {trial['seconds']:.3f} s"
    return options.print(trial, line, said, good=trial["delivered"])


def retry(options: command.Options) -> int:
    """Close a webhook's circuit and send now."""
    name = options.webhook
    return options.do(f"POST /api/webhooks/{name}/retry", f"{name} is tried now")


def examine(here: client.Installation) -> Iterator[client.Finding]:
    """For the doctor; sends nothing: a test event would be an event that did not happen."""
    declared, views = webhooks_of(here.config), None
    if declared:
        with suppress(WaError):  # the check of the agent tells why
            views = {it["name"]: it for it in here.client.get("/api/webhooks")["webhooks"]}
    for webhook in declared:
        from agent.api.handlers.events import unknown_kinds  # with the library for HTTP
        from agent.webhooks.courier import open_files

        check = f"webhook {webhook.name}"
        for fault in unknown_kinds(webhook.name, webhook.kinds):
            yield client.wrong(fault, "correct its kinds in agent.toml", check)
        try:
            open_files(webhook)
        except ConfigError as error:
            advice = "it sends nothing until its file is right, and the user wa-agent may read it"
            yield client.wrong(str(error), advice, check)
            continue
        if views is not None and (it := views.get(webhook.name, {})).get("state") == "failing":
            waiting = f"{it['problem']}; {it['waiting']} events wait"
            yield client.wrong(waiting, f"wa-agent webhooks test {webhook.name}", check)
        elif views is not None:
            yield client.ok("its target takes events", check=check)
