#!/bin/sh
# Renews the keys of sessions of a whaticket server that cannot decrypt messages. For cron, containers
# and CI. --help prints the arguments, the environment variables and the exit statuses.
#   scripts/auto-fix-sessions.sh all|ID
# This file finds a Python that has wa-agent (pip install wa-agent). Where an agent answers, it does
# the work, with the arguments of `wa-agent repair`; else agent/backends/whaticket/once.py.
set -eu
umask 077

here=$(readlink -f "$0" 2>/dev/null) || here=$0
root=$(cd "$(dirname "$here")/.." && pwd)
AUDIT_LOG=${AUDIT_LOG:-$root/logs/auto-fix-sessions.log}
PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1
export AUDIT_LOG PYTHONPATH PYTHONDONTWRITEBYTECODE

for python in "${PYTHON:-}" "$root/venv/bin/python" "$root/.venv/bin/python" "$root/../../bin/python" \
    python3 python3.11 python3.12 python3.13 python3.14 /usr/local/bin/python3; do
    # -P, which Python has since 3.11: the folder that it is called from holds no modules of ours.
    if [ -n "$python" ] && "$python" -P -c 'import agent.backends.whaticket.once' 2>/dev/null; then
        case " $* " in *" --help "* | *" -h "*) answers=5 ;; *)
            answers=0
            "$python" -P -m agent list >/dev/null 2>&1 || answers=$? ;; # 5: no agent can be reached
        esac
        [ $answers -eq 5 ] || exec "$python" -P -m agent repair "$@"
        exec "$python" -P -m agent.backends.whaticket.once "$@"
    fi
done
echo "auto-fix-sessions: cannot find a Python of version 3.11 or newer that has wa-agent: pip install wa-agent, or set PYTHON" >&2
exit 78
