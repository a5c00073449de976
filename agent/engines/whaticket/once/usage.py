"""What `--help` of a run prints."""

USAGE = """\
usage: scripts/auto-fix-sessions.sh all|ID [--debug] [--dry-run]
       scripts/auto-fix-sessions.sh ID --reset [--debug] [--dry-run]
       scripts/auto-fix-sessions.sh ID --put-back NAME
       scripts/auto-fix-sessions.sh --stats

Reads what a whaticket-like server has logged since the last run, and renews the keys of the
sessions that cannot decrypt messages. For cron, containers and CI. Needs Python 3.11, no packages.
If a wa-agent runs on this machine, the script passes its arguments on to `wa-agent repair`.
  all|ID            every session, or the one with this id
  --debug           print each step to stderr
  --dry-run         print what would be done, change nothing
  --reset           end the pairing: back up and remove all keys of the session, then start it
  --put-back NAME   restore the backup BACKUP_DIR/ID/NAME
  --stats           print the totals of all runs
A session with THRESHOLD errors within WINDOW seconds is disconnected. Once it is down, the key
records of the failing peers are backed up and removed, from files and from Redis; if the log names
no peer, the records that cannot be read. Creds and app state keys stay, and so does the pairing.
Then the session is started, and the script waits until it is connected. If there is no record to
remove, the session is not interrupted and the run fails. `all` leaves a session alone that was
disconnected at the server; its ID repairs and starts it. STATE_DIR/memory.json lists the sessions
that a run left down; the next run starts them.

Environment variables, with their defaults:
  BACKEND_URL=http://127.0.0.1:8080
  BACKEND_TOKEN (or BACKEND_TOKEN_FILE), or BACKEND_USER and BACKEND_PASSWORD (or
                   BACKEND_PASSWORD_FILE)
  CA_FILE          certificates to trust instead of this machine's
  LOG_FILE         the server's log, or one log per session: /path/{id}.log
  LOG_SESSION      regular expression: its one group, or the word after it, is the session that a
                   log line names. Without it the session is found by the peer's keys, by being the
                   only session, or by being the only one that reconnected at that time
  LOG_ZONE=auto    zone of log times that name none: utc, local, +HH:MM, or auto (by the time at
                   which the log file was last written)
  SESSIONS_DIR     the auth folders: /path/{id}, or the folder that holds them
  REDIS_URL        redis://[[USER]:PASSWORD@]HOST[:PORT][/DATABASE], rediss://, unix:///path?db=0
  REDIS_PATTERN=sessions:{id}:*
  THRESHOLD=5      errors          WINDOW=300      seconds
  WAIT=60          seconds until a session is down, and until it is connected
  POLL=1           seconds between two checks of that
  TIMEOUT=10       seconds for one request
  TRIES=3          tries of a request      PAUSE=2  seconds before the second one; doubles
  DISCONNECT_ROUTE='PUT /whatsapp/{id}/disconnect'  must keep the pairing; in most public forks it
                   does not
  START_ROUTE='PUT /whatsapp/{id}/start-session'    STATE_ROUTE='GET /whatsapp/{id}'
  LIST_ROUTE='GET /whatsapp/'                       LOGIN_ROUTE='POST /auth/login'
  AUDIT_LOG=logs/auto-fix-sessions.log
  STATE_DIR        what the next run needs; do not delete it
  BACKUP_DIR       removed keys, STATE_DIR/removed by default      KEEP_DAYS=7
  WA_AGENT_SOCKET=/run/wa-agent/api.sock
  MAX_READ=16777216  bytes of a log that one run reads
  PYTHON           the Python to use; by default the first one that is new enough
A log line without a time counts as written now, but not in the first run.
Exit status: 0 done, 1 failed, 2 wrong arguments, 3 not found, 4 refused, 5 server or Redis not
reachable, 75 another run is active, 78 wrong configuration.
"""
