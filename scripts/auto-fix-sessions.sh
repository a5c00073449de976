#!/bin/sh
# Renews the keys of sessions of a whaticket-like server that cannot decrypt messages. For cron,
# containers and CI. --help prints the arguments, the environment variables and the exit statuses.
#   scripts/auto-fix-sessions.sh all|ID [--debug] [--dry-run]
# This file finds a Python and runs agent/engines/whaticket/repair_once.py, which needs the
# standard library only: a copy of the folders `agent` and `scripts` is enough.
set -eu
umask 077

here=$(readlink -f "$0" 2>/dev/null) || here=$0
root=$(cd "$(dirname "$here")/.." && pwd)
AUDIT_LOG=${AUDIT_LOG:-$root/logs/auto-fix-sessions.log}
PYTHONPATH=$root PYTHONDONTWRITEBYTECODE=1
export AUDIT_LOG PYTHONPATH PYTHONDONTWRITEBYTECODE

for python in "${PYTHON:-}" "$root/venv/bin/python" "$root/.venv/bin/python" python3 python3.11 python3.12 \
    python3.13 python3.14 /usr/local/bin/python3; do
    # -P, which Python has since 3.11: the folder that it is called from holds no modules of ours.
    if [ -n "$python" ] && "$python" -P -c 'import agent.errors' 2>/dev/null; then
        exec "$python" -P -m agent.engines.whaticket.repair_once "$@"
    fi
done
echo "auto-fix-sessions: cannot find a Python of version 3.11 or newer that finds the folder agent beside scripts: set PYTHON" >&2
exit 78
