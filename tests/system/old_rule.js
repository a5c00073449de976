// The agent's user may run its workers, and nothing else of this machine.
// systemd tells neither unit nor verb for enabling and reloading, so those stay denied.
polkit.addRule(function (action, subject) {
    if (action.id !== "org.freedesktop.systemd1.manage-units" || subject.user !== "wa-agent") {
        return polkit.Result.NOT_HANDLED;
    }
    var unit = action.lookup("unit"), verb = action.lookup("verb");
    if (!unit || !verb) {
        return polkit.Result.NOT_HANDLED;
    }
    if (!/^wa-(instance|backend)@[a-z0-9][a-z0-9_-]{0,47}\.service$/.test(unit)) {
        return polkit.Result.NOT_HANDLED;
    }
    if (["start", "stop", "restart", "reset-failed", "set-property"].indexOf(verb) < 0) {
        return polkit.Result.NOT_HANDLED;
    }
    return polkit.Result.YES;
});
