#!/bin/sh
# One round over the sessions of a whaticket-like server: reads its log, and renews the keys of the
# sessions that cannot decrypt any more. For cron, containers and CI, where wa-agent does not run;
# where it does, the same words are handed to `wa-agent repair`.
#   scripts/auto-fix-sessions.sh all|ID [--debug] [--dry-run]
#   scripts/auto-fix-sessions.sh ID --reset [--debug] [--dry-run]   give the pairing up, whole folder
#   scripts/auto-fix-sessions.sh --stats
# A session with THRESHOLD errors within WINDOW seconds is disconnected; when it is down, its damaged
# peers' files and Redis keys are backed up and removed (never creds, pre-keys or app state keys: the
# pairing stays); it is started again and awaited. A round that was cut off is finished by the next.
# Settings are environment variables; what has no default here may be left away:
#   BACKEND_URL=http://127.0.0.1:8080    BACKEND_TOKEN (or BACKEND_TOKEN_FILE), or BACKEND_USER and
#   BACKEND_PASSWORD (or BACKEND_PASSWORD_FILE)    CA_FILE
#   LOG_FILE         the server's log, or one log per session: /path/{id}.log
#   LOG_SESSION      text (an awk expression) after which a log line names its session; without it a
#                    peer's files tell whose peer it is
#   SESSIONS_DIR     the auth folders: /path/{id}, or the folder that holds one for each session
#   REDIS_URL, REDIS_PATTERN=sessions:{id}:*
#   THRESHOLD=5  WINDOW=300  WAIT=60 (seconds until connected)  POLL=1  TIMEOUT=10  TRIES=3  PAUSE=2
#   DISCONNECT_ROUTE='PUT /whatsapp/{id}/disconnect'    it must keep the pairing; most public forks' do not
#   START_ROUTE='PUT /whatsapp/{id}/start-session'  STATE_ROUTE='GET /whatsapp/{id}'
#   LOGIN_ROUTE='POST /auth/login'
#   AUDIT_LOG=logs/auto-fix-sessions.log    STATE_DIR: what is remembered; do not let it get lost
#   BACKUP_DIR: what was removed, in STATE_DIR if not said; KEEP_DAYS=7
#   WA_AGENT_SOCKET=/run/wa-agent/api.sock  MAX_READ=16777216 (bytes of a log that one round reads)
# Log lines without a time count as of the round that reads them; at the first round they do not.
# Exit status: 0 done, 1 failed, 2 wrong use, 3 not found, 4 refused, 5 server not reachable,
# 75 another round runs, 78 configuration.
set -eu
umask 077
LC_ALL=C LOG_SESSION=${LOG_SESSION:-}
export LC_ALL LOG_SESSION

fail() { status=$1; shift; echo "auto-fix-sessions: $*" >&2; exit "$status"; }

what='' debug=no dry_run=no reset=no stats=no
for argument in "$@"; do
    case $argument in
    --debug) debug=yes ;;
    --dry-run) dry_run=yes ;;
    --reset) reset=yes ;;
    --stats) stats=yes ;;
    -h | --help) sed -n '2,/^set -eu/{/^# \{0,1\}/{s///;p;};}' "$0"; exit 0 ;;
    -*) fail 2 "cannot understand '$argument'; see --help" ;;
    *) [ -z "$what" ] || fail 2 "cannot repair '$what' and '$argument' in one round; see --help"; what=$argument ;;
    esac
done
is_id() { case $1 in '' | [-.]* | *[!A-Za-z0-9_.-]*) return 1 ;; esac; }
if [ -n "$what" ]; then is_id "$what" || fail 2 "cannot use '$what' as a session's id"; fi
[ -n "$what" ] || [ $stats = yes ] || fail 2 "say all, a session, or --stats; see --help"
if [ $reset = yes ]; then
    [ -n "$what" ] && [ "$what" != all ] || fail 2 "--reset ends a pairing: name the one session"
fi

# Where the agent runs it does this itself, and better: it must not be done by two.
command -v curl >/dev/null || fail 78 "cannot work without curl: install it"
socket=${WA_AGENT_SOCKET:-/run/wa-agent/api.sock}
if [ -S "$socket" ] && curl -q -sf --max-time 2 --unix-socket "$socket" -o /dev/null http://localhost/healthz; then
    command -v wa-agent >/dev/null || fail 78 "the agent answers at $socket, and its program wa-agent is not in PATH"
    WA_AGENT_SOCKET=$socket
    export WA_AGENT_SOCKET
    if [ $reset = yes ] && [ $dry_run = no ]; then exec wa-agent cleanup "$what" --yes; fi
    set -- ${what:+"$what"}
    if [ $debug = yes ]; then set -- "$@" --debug; fi
    if [ $dry_run = yes ]; then set -- "$@" --dry-run; fi
    if [ $stats = yes ]; then set -- "$@" --stats; fi
    exec wa-agent repair "$@"
fi

# --- settings -----------------------------------------------------------------------------------

root=$(cd "$(dirname "$0")/.." && pwd)
BACKEND_URL=${BACKEND_URL:-http://127.0.0.1:8080}
BACKEND_URL=${BACKEND_URL%/}
LOG_FILE=${LOG_FILE:-} SESSIONS_DIR=${SESSIONS_DIR:-} CA_FILE=${CA_FILE:-}
REDIS_PATTERN=${REDIS_PATTERN:-'sessions:{id}:*'}
THRESHOLD=${THRESHOLD:-5} WINDOW=${WINDOW:-300} WAIT=${WAIT:-60} TIMEOUT=${TIMEOUT:-10}
TRIES=${TRIES:-3} PAUSE=${PAUSE:-2} POLL=${POLL:-1} KEEP_DAYS=${KEEP_DAYS:-7} MAX_READ=${MAX_READ:-16777216}
DISCONNECT_ROUTE=${DISCONNECT_ROUTE:-'PUT /whatsapp/{id}/disconnect'}
START_ROUTE=${START_ROUTE:-'PUT /whatsapp/{id}/start-session'}
STATE_ROUTE=${STATE_ROUTE:-'GET /whatsapp/{id}'}
LOGIN_ROUTE=${LOGIN_ROUTE:-'POST /auth/login'}
AUDIT_LOG=${AUDIT_LOG:-$root/logs/auto-fix-sessions.log}
STATE_DIR=${STATE_DIR:-$(dirname "$AUDIT_LOG")/auto-fix-sessions}
BACKUP_DIR=${BACKUP_DIR:-$STATE_DIR/removed}

# From here on no child finds a secret in its environment.
token=${BACKEND_TOKEN:-} user=${BACKEND_USER:-} password=${BACKEND_PASSWORD:-} redis_url=${REDIS_URL:-}
if [ -n "${BACKEND_TOKEN_FILE:-}" ]; then token=$(cat "$BACKEND_TOKEN_FILE") || fail 78 "cannot read BACKEND_TOKEN_FILE"; fi
if [ -n "${BACKEND_PASSWORD_FILE:-}" ]; then password=$(cat "$BACKEND_PASSWORD_FILE") || fail 78 "cannot read BACKEND_PASSWORD_FILE"; fi
unset BACKEND_TOKEN BACKEND_USER BACKEND_PASSWORD REDIS_URL

for setting in THRESHOLD WINDOW WAIT TIMEOUT TRIES PAUSE KEEP_DAYS MAX_READ; do
    eval "value=\$$setting"
    case $value in '' | *[!0-9]*) fail 78 "cannot use $setting='$value': a whole number is needed" ;; esac
done
[ "$THRESHOLD" -gt 0 ] && [ "$WINDOW" -gt 0 ] || fail 78 "THRESHOLD and WINDOW must be more than 0"
case $BACKEND_URL in
http://*@* | https://*@*) fail 78 "cannot use BACKEND_URL: user and password have settings of their own" ;;
http://?* | https://?*) ;;
*) fail 78 "cannot use BACKEND_URL: http://HOST:PORT is needed" ;;
esac
for value in "$BACKEND_URL" "$token" "$user" "$password" "$redis_url"; do
    case $value in *[[:cntrl:]]*) fail 78 "a URL, a token, a user or a password has more than one line" ;; esac
done
for value in "$DISCONNECT_ROUTE" "$START_ROUTE" "$STATE_ROUTE"; do
    case $value in [A-Z]*' /'*'{id}'*) ;; *) fail 78 "cannot use the route '$value': VERB /path/{id} is needed" ;; esac
done
case $REDIS_PATTERN in ?*'{id}'?*'*') ;; *) fail 78 "cannot use REDIS_PATTERN: something:{id}:* is needed" ;; esac
if [ -n "$redis_url" ]; then
    command -v redis-cli >/dev/null || fail 78 "REDIS_URL is set and redis-cli is missing: install redis-tools"
fi
awk 'BEGIN { x = "" ~ ENVIRON["LOG_SESSION"] }' 2>/dev/null ||
    fail 78 "cannot use LOG_SESSION='$LOG_SESSION': an awk expression is needed"
if [ $stats = no ] && [ $reset = no ]; then
    [ -n "$LOG_FILE" ] || fail 78 "LOG_FILE is not set: where are the server's errors?"
fi
mkdir -p "$(dirname "$AUDIT_LOG")" "$STATE_DIR/underway" "$BACKUP_DIR" && : >>"$AUDIT_LOG" ||
    fail 78 "cannot write $AUDIT_LOG, $STATE_DIR or $BACKUP_DIR"
memory=$STATE_DIR/memory
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
stopping=no
trap 'stopping=yes' INT TERM HUP # the session under way is still started again

# --- what this has come to ----------------------------------------------------------------------

checked=0 repaired=0 cleaned=0 failed=0 needed=0 check_seconds=0 repair_seconds=0
if [ -e "$STATE_DIR/stats" ]; then
    read -r checked repaired cleaned failed needed check_seconds repair_seconds <"$STATE_DIR/stats" || true
fi
keep_stats() {
    echo "$checked $repaired $cleaned $failed $needed $check_seconds $repair_seconds" >"$STATE_DIR/stats.new"
    mv "$STATE_DIR/stats.new" "$STATE_DIR/stats"
}
if [ $stats = yes ]; then
    awk -v c="$checked" -v r="$repaired" -v n="$cleaned" -v f="$failed" -v p="$needed" \
        -v cs="$check_seconds" -v rs="$repair_seconds" 'BEGIN {
        line = "%-28s %s\n"; healed = r + n
        printf line, "checked", c
        printf line, "mean time of a check", c ? sprintf("%.1f s", cs / c) : "-"
        printf line, "repaired", r
        printf line, "cleaned", n
        printf line, "failed", f
        printf line, "mean time to repair", healed ? sprintf("%.1f s", rs / healed) : "-"
        printf line, "success rate", healed + f ? sprintf("%.0f%%", 100 * healed / (healed + f)) : "-"
        printf line, "ended needing a person", p
    }'
    exit 0
fi

note() { # note LEVEL SESSION TEXT: into the audit log; with --debug also to stderr
    line="[$(date '+%Y-%m-%d %H:%M:%S')] [$1] [RECOVERY]${2:+ [$2]} $3"
    if [ $dry_run = no ]; then printf '%s\n' "$line" >>"$AUDIT_LOG"; fi
    if [ $debug = yes ]; then printf '%s\n' "$line" >&2; fi
}
shown=no
row() { # row SESSION WHY RESULT
    if [ $shown = no ]; then printf '%-16s %-34s %s\n' ID WHY RESULT; shown=yes; fi
    printf '%-16s %-34s %s\n' "$1" "$2" "$3"
}

if [ $dry_run = no ]; then
    if command -v flock >/dev/null; then
        exec 9>"$STATE_DIR/lock"
        flock -n 9 || fail 75 "another round runs; try again later"
    elif ! mkdir "$STATE_DIR/lock.held" 2>/dev/null; then
        owner=$(cat "$STATE_DIR/lock.held/pid" 2>/dev/null) || owner=
        if [ -z "$owner" ] || kill -0 "$owner" 2>/dev/null; then fail 75 "another round runs; try again later"; fi
        # Its owner was killed. One rename: of two that see this, one gets it.
        mv "$STATE_DIR/lock.held" "$work/stale" 2>/dev/null && mkdir "$STATE_DIR/lock.held" 2>/dev/null ||
            fail 75 "another round runs; try again later"
    fi
    if [ -d "$STATE_DIR/lock.held" ] && ! command -v flock >/dev/null; then
        echo $$ >"$STATE_DIR/lock.held/pid"
        trap 'rm -rf "$work" "$STATE_DIR/lock.held"' EXIT
    fi
fi

# --- the server ---------------------------------------------------------------------------------

with_id() { printf '%s%s%s' "${1%%\{id\}*}" "$2" "${1#*\{id\}}"; }
quoted() { printf '%s' "$1" | sed 's/[\\"]/\\&/g'; }

ask() { # ask "VERB /path" [JSON]: its status in $code, 000 for no answer; its body in $work/answer
    : >"$work/answer"
    {
        printf 'url = "%s"\nrequest = "%s"\n' "$(quoted "$BACKEND_URL${1#* }")" "${1%% *}"
        printf 'header = "Accept: application/json"\n'
        if [ -n "$token" ]; then printf 'header = "Authorization: Bearer %s"\n' "$(quoted "$token")"; fi
        case $1 in
        P*) printf 'header = "Content-Type: application/json"\ndata-raw = "%s"\n' "$(quoted "${2:-{\}}")" ;;
        esac
        if [ -n "$CA_FILE" ]; then printf 'cacert = "%s"\n' "$(quoted "$CA_FILE")"; fi
        # On its standard input, for everybody can read a command line.
    } | curl -q -K - -s --proto '=http,https' --max-time "$TIMEOUT" --max-filesize 4194304 \
        -o "$work/answer" -w '%{http_code}' >"$work/code" 2>/dev/null || echo 000 >"$work/code"
    code=$(head -n 1 "$work/code")
}

json_value() { # json_value KEY: the text of the outermost KEY in $work/answer
    awk -v key="$1" '
    { text = text $0 " " }
    END {
        best = 1000
        for (at = 1; at <= length(text); at++) {
            c = substr(text, at, 1)
            if (c == "{" || c == "[") { depth++; wanted = 0 }
            else if (c == "}" || c == "]") { depth--; wanted = 0 }
            else if (c == ",") wanted = 0
            else if (c == "\"") {
                word = ""
                for (at++; at <= length(text); at++) {
                    c = substr(text, at, 1)
                    if (c == "\"") break
                    if (c == "\\") { at++; c = substr(text, at, 1) }
                    if (length(word) < 4096) word = word c
                }
                if (wanted && depth < best) { best = depth; found = word }
                wanted = !wanted && word == key && substr(text, at + 1, 9) ~ /^[ \t]*:/
            }
        }
        print found
    }' "$work/answer"
}

login() {
    [ -n "$user" ] || return 1
    token=
    ask "$LOGIN_ROUTE" "{\"email\":\"$(quoted "$user")\",\"password\":\"$(quoted "$password")\"}"
    case $code in 2??) token=$(json_value token) ;; *) return 1 ;; esac
    [ -n "$token" ]
}

try() { # try "VERB /path": true when the server did it; else $why says what it answered
    tries=1 pause=$PAUSE renewed=no
    while :; do
        if [ -z "$token" ] && [ -n "$user" ]; then renewed=yes; login || { why="it refuses to log $user in ($code)"; break; }; fi
        ask "$1"
        case $code in
        2??) return 0 ;;
        401 | 403)
            # A token lives for minutes.
            if [ -n "$user" ] && [ $renewed = no ]; then renewed=yes; token=; continue; fi
            why="it refuses ($code)"; break ;;
        404) why="it does not know this session (404)"; break ;;
        000) why="it does not answer" ;;
        5??) why="it fails ($code)" ;;
        *) why="it answers $code"; break ;;
        esac
        if [ "$tries" -ge "$TRIES" ] || [ $stopping = yes ]; then break; fi
        sleep "$pause"
        tries=$((tries + 1)) pause=$((pause * 2))
    done
    return 1
}
status_of_code() { case $code in 000) echo 5 ;; 401 | 403) echo 4 ;; 404) echo 3 ;; *) echo 1 ;; esac; }

# --- Redis --------------------------------------------------------------------------------------

if [ -n "$redis_url" ]; then
    redis_rest=${redis_url#*://} redis_user='' redis_password='' redis_database=0
    case $redis_rest in
    *@*)
        redis_password=${redis_rest%@*} redis_rest=${redis_rest##*@}
        case $redis_password in *:*) redis_user=${redis_password%%:*} redis_password=${redis_password#*:} ;; esac ;;
    esac
    case $redis_rest in */?*) redis_database=${redis_rest#*/} ;; esac
    redis_rest=${redis_rest%%/*}
    redis_port=6379
    case $redis_rest in *:*) redis_port=${redis_rest##*:} ;; esac
    redis_host=${redis_rest%:*}
    case $redis_url in redis://* | rediss://*) ;; *) fail 78 "cannot use REDIS_URL: redis://[USER:PASSWORD@]HOST:PORT/DATABASE is needed" ;; esac
    case $redis_port$redis_database in *[!0-9]*) fail 78 "cannot use REDIS_URL: its port or its database is no number" ;; esac
fi
redis() {
    set -- -h "$redis_host" -p "$redis_port" -n "$redis_database" "$@"
    if [ -n "$redis_user" ]; then set -- --user "$redis_user" "$@"; fi
    case $redis_url in rediss://*) set -- --tls ${CA_FILE:+--cacert "$CA_FILE"} "$@" ;; esac
    REDISCLI_AUTH=$redis_password redis-cli "$@"
}
if [ -n "$redis_url" ]; then
    [ "$(redis PING 2>/dev/null)" = PONG ] || fail 5 "cannot reach Redis at $redis_host:$redis_port"
fi

# --- whose errors -------------------------------------------------------------------------------

folder_of() { case $SESSIONS_DIR in *'{id}'*) with_id "$SESSIONS_DIR" "$1" ;; *) printf '%s/%s' "$SESSIONS_DIR" "$1" ;; esac; }

list_peers() { # "SESSION PEER" for every peer that a session has keys with, and "SESSION" for every session
    if [ -n "$SESSIONS_DIR" ]; then
        before=${SESSIONS_DIR%%\{id\}*} after=
        case $SESSIONS_DIR in *'{id}'*) after=${SESSIONS_DIR#*\{id\}} ;; *) before=$SESSIONS_DIR/ ;; esac
        for folder in "$before"*"$after"; do
            [ -d "$folder" ] || continue
            session=${folder#"$before"} session=${session%"$after"}
            is_id "$session" || continue
            echo "$session"
            find "$folder" -maxdepth 1 -name 'session-*.json' 2>/dev/null |
                sed -n "s|.*/session-\([0-9_]*\)\.[0-9]*\.json\$|$session \1|p"
        done
    fi
    # Whose keys were removed fails on until new ones are agreed: it is known by what is backed up.
    for manifest in "$BACKUP_DIR"/*/*/manifest; do
        [ -f "$manifest" ] || continue
        session=${manifest#"$BACKUP_DIR"/}
        sed -n "s|^[fk].*session-\([0-9_]*\)\.[0-9].*|${session%%/*} \1|p" "$manifest"
    done
    if [ -n "$redis_url" ]; then
        # Not KEYS: that would hold up everybody else.
        redis --scan --pattern "$(with_id "${REDIS_PATTERN%\*}session-" '*')*" |
            awk -v before="${REDIS_PATTERN%%\{id\}*}" -v after="${REDIS_PATTERN#*\{id\}}" '{
                sub(/\*$/, "", after)
                rest = substr($0, length(before) + 1); at = index(rest, after "session-")
                if (index($0, before) == 1 && at > 1) {
                    peer = substr(rest, at + length(after "session-")); sub(/\.[0-9]+$/, "", peer)
                    print substr(rest, 1, at - 1); print substr(rest, 1, at - 1), peer
                }
            }' | sort -u
    fi
}

# Reads log lines as agent/core/findings/crypto_patterns.py does: names and peers are taken out of a line,
# nothing else, for some dumps hold private keys. Prints "e TIME SESSION PEER COUNT".
read_errors='
function classify(low) {
    if (low ~ /mac error detected, forcing immediate session recreation/) return "-"
    if (low ~ /failed to decrypt message with any known session/) return "H"
    if (low ~ /key used already or never filled|messagecountererror|received message with old counter/) return "-"
    if (low ~ /decrypted message with closed session|closing (open )?session|opening session|removing old closed session/) return "-"
    if (low ~ /message absent from node/) return "-"
    if (low ~ /invalid patch mac|hmac (index|content) verification failed|failed to verify lthash/) return "-"
    if (low ~ /failed to find key .* to decode|myappstatekey .* not present|failed to sync (state|[a-z0-9_]+) from v/) return "-"
    if (low ~ /over [0-9]+ messages into the future|bad[ _-]?mac|invalid pre-?key id|prekeyerror|missing signed-?prekey/) return "E"
    if (low ~ /no matching sessions found for message/) return "S"
    if (low ~ /no session record|no session found to decrypt|no (open )?sessions([^a-z0-9_]|$)/) return "E"
    if (low ~ /no senderkeyrecord found|no sender message key found|invalidmessageexception|invalid signature!/) return "E"
    if (low ~ /sessionerror|session error:/) return "E"
    if (low ~ /failed to decrypt|error decrypting|could not decrypt/) return "S"
    if (low ~ /undecryptablemessage/) return "E"
    return ""
}
function digits(text) { return match(text, /[0-9][0-9][0-9][0-9][0-9]+(_[0-9]+)?/) ? substr(text, RSTART, RLENGTH) : "" }
function peer_in(line) {
    if (match(line, /at (async )?(Object\.)?[0-9]+(_[0-9]+)?\.[0-9]+ \[as awaitable\]/)) return digits(substr(line, RSTART, RLENGTH))
    if (match(line, /at async (Object\.)?[0-9]+(_[0-9]+)?\.[0-9]+/)) return digits(substr(line, RSTART, RLENGTH))
    if (match(line, /"participant(Alt)?" *: *"[0-9]+(:[0-9]+)?@/)) return digits(substr(line, RSTART, RLENGTH))
    if (line ~ /"fromMe" *: *true/) return "" # of an own message the chat is the receiver
    if (match(line, /"remoteJid" *: *"[0-9]+(:[0-9]+)?@(s\.whatsapp\.net|lid)/)) return digits(substr(line, RSTART, RLENGTH))
    if (match(line, /from [0-9]+([.:][0-9]+)*@(s\.whatsapp\.net|lid)/)) return digits(substr(line, RSTART, RLENGTH))
    return ""
}
function seconds(y, m, d, clock,    parts) {
    y += 0; m += 0 # of text "11" comes before "2"
    if (m <= 2) { y--; m += 12 }
    split(clock, parts, ":")
    return (365 * y + int(y / 4) - int(y / 100) + int(y / 400) + int((153 * (m - 3) + 2) / 5) + d - 719469) * 86400 \
        + parts[1] * 3600 + parts[2] * 60 + parts[3]
}
function time_in(line,    found, rest, off) {
    if (match(line, /"time": *1[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9]/))
        return int(substr(line, RSTART + RLENGTH - 13, 10))
    line = substr(line, 1, 64)
    if (match(line, /20[0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9]/)) {
        found = substr(line, RSTART, RLENGTH); rest = substr(line, RSTART + RLENGTH)
        found = seconds(substr(found, 1, 4), substr(found, 6, 2), substr(found, 9, 2), substr(found, 12))
        sub(/^[.,][0-9]+/, "", rest)
        if (rest ~ /^Z/) return found
        if (rest ~ /^ ?[+-][0-9][0-9]:?[0-9][0-9]/) { sub(/^ /, "", rest); gsub(/:/, "", rest); return found - offset(rest) }
        return found - offset(zone)
    }
    if (match(line, /^\[[0-9][0-9]:[0-9][0-9]:[0-9][0-9]\.[0-9]+\]/)) {
        # pino-pretty, in UTC or local: whichever is the last that is not to come.
        found = seconds(1970, 1, 1, substr(line, 2, 8))
        rest = last_of(found); off = last_of(found - offset(zone))
        return rest > off ? rest : off
    }
    return 0
}
function last_of(of_day,    at) { at = now - (now - of_day) % 86400; return at > now + 60 ? at - 86400 : at }
function offset(text) { return (substr(text, 1, 1) == "-" ? -1 : 1) * (substr(text, 2, 2) * 3600 + substr(text, 4, 2) * 60) }
function session_in(line,    rest) {
    if (named == "" || !match(line, named)) return ""
    rest = substr(line, RSTART + RLENGTH)
    return match(rest, /^[A-Za-z0-9_][A-Za-z0-9_.-]*/) ? substr(rest, 1, RLENGTH) : ""
}
function emit(kind, peer, session, at) {
    if (kind == "-") return
    sub(/_[0-9]+$/, "", peer)
    if (session == "") session = fixed != "" ? fixed : (peer in holder) ? holder[peer] : only != "" ? only : "*"
    # A summary repeats what a line just before it said.
    if (kind == "S" && ((peer == "" && told[session] + 15 > at) || told[session, peer] + 15 > at || told[session, ""] + 15 > at)) return
    told[session] = told[session, peer] = at
    if (at) count[int(at / 10) * 10 " " session " " (peer == "" ? "-" : peer)]++
}
function flush() {
    if (waiting != "") emit(waiting, waiting_peer, waiting_session, waiting_at)
    waiting = waiting_peer = ""; stack = block = 0
}
function wait_for_stack(kind, peer, session) {
    waiting = kind; waiting_peer = peer; waiting_session = session; waiting_at = clock; stack = 0
}
function end_record() {
    if (record_kind != "") emit("S", record_peer, record_session, record_at)
    record = 0; record_kind = record_peer = ""
}
function take(line,    stamp, kind, peer, session) {
    line = substr(line, 1, 8192)
    gsub(/\033\[[0-9;]*m/, "", line)
    if (stamp = time_in(line)) clock = stamp
    sub(/^[0-9]+\|[^|]*\| /, "", line)
    sub(/^20[0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9:.,]+(Z|[+-][0-9:]+)?:? /, "", line)
    if (record) {
        # What pino-pretty prints below a line belongs to it: one message, however many words.
        if (line ~ /^[ \t]/ && ++record < 120) {
            kind = classify(tolower(line))
            if (kind == "E" || kind == "S") record_kind = "S"
            if (line ~ /"?fromMe"?: true/) own = 1
            if (record_peer == "" && (peer = peer_in(line)) != "" && !(own && line ~ /remoteJid/)) record_peer = peer
            return
        }
        end_record()
    }
    if (line ~ /^(\[[^]]*\] )?(TRACE|DEBUG|INFO|WARN|ERROR|FATAL)( \[[^]]*\])?( \([^)]*\))?: /) {
        flush()
        record = 1; own = 0; record_at = clock; record_session = session_in(line)
        kind = classify(tolower(line)); record_kind = kind == "E" || kind == "S" ? "S" : ""
        record_peer = peer_in(line)
        return
    }
    if (line ~ /^[ \t]+at /) {
        if (waiting == "" || waiting_peer != "") return
        if (stack >= 30) flush()
        else if ((waiting_peer = peer_in(line)) == "") stack++
        else if (!block) flush()
        return
    }
    kind = classify(tolower(line)); session = session_in(line)
    if (kind != "" && block && index(line, "Session error:")) {
        # One message, an error for each session it was tried with; one that came twice is none.
        if (waiting == "") wait_for_stack(kind, peer_in(line), session == "" ? head_session : session)
        else if (kind == "-") waiting = kind
        return
    }
    flush()
    if (kind == "") return
    if (kind == "H") { block = 1; head_session = session; return }
    peer = peer_in(line)
    if (kind == "E" && line ~ /^[ \t]*[{]/) kind = "S"
    if (kind != "E" || peer != "") emit(kind, peer, session, clock)
    else wait_for_stack(kind, "", session)
}
BEGIN {
    named = ENVIRON["LOG_SESSION"] # -v would take its backslashes away
    clock = first ? 0 : now
    while ((getline row < peers) > 0) {
        n = split(row, part, " ")
        if (n == 1) { if (part[1] in seen) continue; seen[part[1]]; only = sessions++ ? "" : part[1]; continue }
        sub(/_[0-9]+$/, "", part[2])
        if (!(part[2] in holder)) holder[part[2]] = part[1]
        else if (holder[part[2]] != part[1]) holder[part[2]] = "*"
    }
}
NR > 1 { take(previous); bytes += length(previous) + 1 }
{ previous = $0 }
END {
    if (NR && complete) { take(previous); bytes += length(previous) + 1 }
    flush()
    end_record()
    for (key in count) print "e", key, count[key]
    print "b", bytes + 0
}'

head_sum() { head -c "$2" "$1" | cksum | tr -d ' \t'; }

read_part() { # read_part FILE FROM TO SESSION FIRST: errors into $work/found; $read_to is how far lines were whole
    from=$2
    if [ $(($3 - from)) -gt "$MAX_READ" ]; then
        from=$(($3 - MAX_READ))
        if [ "$5" = 0 ]; then note WARN "" "$((from - $2)) bytes of $1 were not read: more came than MAX_READ"; fi
    fi
    complete=0
    if [ "$3" -gt "$from" ] && [ -z "$(tail -c "+$3" "$1" | head -c 1 | tr -d '\n')" ]; then complete=1; fi
    tail -c "+$((from + 1))" "$1" | head -c $(($3 - from)) | tr '\000' ' ' |
        awk -v now="$now" -v zone="$zone" -v fixed="$4" -v first="$5" \
            -v peers="$work/peers" -v complete=$complete "$read_errors" >"$work/part"
    read_to=$((from + $(sed -n 's/^b //p' "$work/part")))
    sed -n '/^e /p' "$work/part" >>"$work/found"
}

read_log() { # read_log FILE SESSION: what came since the last round, also across a rotation
    file=$1
    [ -r "$file" ] || fail 78 "cannot read the log $file"
    size=$(wc -c <"$file")
    size=$((size)) inode=$(ls -diL "$file" | awk '{ print $1 }') first=1 from=0
    kept=$(awk -v file="$file" '$1 == "p" && substr($0, index($0, " /") + 1) == file { print $2, $3, $4, $5 }' "$memory")
    if [ -n "$kept" ]; then
        first=0
        read -r was_inode was_at was_length was_sum <<KEPT
$kept
KEPT
        if is_same "$file" "$size" && [ "$inode" = "$was_inode" ]; then
            from=$was_at
        else
            for old in "$file".* "$file"-*; do
                [ -f "$old" ] || continue
                old_size=$(wc -c <"$old")
                if is_same "$old" $((old_size)); then read_part "$old" "$was_at" $((old_size)) "$2" 0; break; fi
            done
        fi
    fi
    read_part "$file" "$from" "$size" "$2" $first
    length=$read_to
    if [ "$length" -gt 256 ]; then length=256; fi
    echo "p $inode $read_to $length $(head_sum "$file" "$length") $file" >>"$work/positions"
}
is_same() { # is_same FILE SIZE: does it begin as the log did that was read last?
    [ "$2" -ge "$was_at" ] && [ "$(head_sum "$1" "$was_length")" = "$was_sum" ] &&
        { [ "$was_length" -gt 0 ] || [ "$(ls -diL "$1" | awk '{ print $1 }')" = "$was_inode" ]; }
}

remember() { # remember FILE...: positions and errors at once, whole or not at all
    cat "$@" >"$memory.new"
    mv "$memory.new" "$memory"
}

find_errors() { # all that is known now into $work/errors, sorted by time
    [ -e "$memory" ] || : >"$memory"
    now=$(date +%s) zone=$(date +%z)
    : >"$work/found" && : >"$work/positions" && : >"$work/peers"
    case $LOG_FILE in
    /*) ;;
    *) LOG_FILE=$(pwd)/$LOG_FILE ;;
    esac
    case $LOG_FILE in
    *'{id}'*)
        for file in "${LOG_FILE%%\{id\}*}"*"${LOG_FILE#*\{id\}}"; do
            session=${file#"${LOG_FILE%%\{id\}*}"} session=${session%"${LOG_FILE#*\{id\}}"}
            if [ -f "$file" ] && is_id "$session"; then read_log "$file" "$session"; fi
        done ;;
    *)
        if [ -z "$LOG_SESSION" ]; then list_peers >"$work/peers"; fi
        read_log "$LOG_FILE" "" ;;
    esac
    # What was not repaired counts on: the first errors of a window may have come before the last round.
    awk -v since=$((now - WINDOW - 600)) '$1 == "e" && $2 >= since' "$memory" "$work/found" | sort -k2n >"$work/errors"
    if [ $dry_run = no ]; then remember "$work/positions" "$work/errors"; fi
}

over_threshold() { # "SESSION COUNT PEER,PEER,..." for who had so many within one window
    awk -v window="$WINDOW" -v threshold="$THRESHOLD" '
    { session = $3; n = ++last[session]; at[session, n] = $2; many[session, n] = $5; sum[session] += $5
      while (at[session, head[session] + 1] <= $2 - window) sum[session] -= many[session, ++head[session]]
      if (sum[session] > most[session]) most[session] = sum[session]
      if ($4 != "-" && !((session, $4) in known)) { known[session, $4]; peers[session] = peers[session] "," $4 } }
    END { for (session in most) if (most[session] >= threshold) print session, most[session], substr(peers[session], 2) ","
    }' "$work/errors" | sort
}

# --- one session --------------------------------------------------------------------------------

damaged_files() { # damaged_files FOLDER PEERS: the names of what these peers' keys are in
    for peer in $(echo "$2" | tr ',' ' '); do
        case $peer in *[!0-9]*) continue ;; esac
        numbers=$peer
        for path in "$1/lid-mapping-$peer.json" "$1/lid-mapping-${peer}_reverse.json"; do
            if [ -f "$path" ]; then numbers="$numbers $(sed 's/[:@].*//' "$path" | tr -cd 0-9)"; fi
        done
        for number in $numbers; do
            for path in "$1/session-$number".*.json "$1/session-${number}_"*.json "$1/identity-key-$number".*.json \
                "$1/identity-key-${number}_"*.json "$1"/sender-key-*--"$number"--*.json "$1"/sender-key-*--"${number}_"*--*.json; do
                echo "$path"
            done
        done
    done | sort -u | while IFS= read -r path; do
        name=${path##*/}
        case $name in creds.json | pre-key-* | app-state-sync-key-* | sender-key-memory-*) continue ;; esac
        if [ -f "$path" ] && [ ! -L "$path" ]; then echo "$name"; fi
    done
}
damaged_keys() { # damaged_keys SESSION PEERS: the same in Redis; everything with --reset
    keys=$(with_id "${REDIS_PATTERN%\*}" "$1")
    if [ $reset = yes ]; then redis --scan --pattern "$keys*"; return; fi
    redis --scan --pattern "$keys*" >"$work/every" || return 1
    for peer in $(echo "$2" | tr ',' ' '); do
        case $peer in *[!0-9]*) continue ;; esac
        numbers=$peer
        for key in "${keys}lid-mapping-$peer" "${keys}lid-mapping-${peer}_reverse"; do
            if grep -qxF "$key" "$work/every"; then numbers="$numbers $(redis GET "$key" </dev/null | sed 's/[:@].*//' | tr -cd 0-9)"; fi
        done
        for number in $numbers; do
            awk -v keys="$keys" -v number="$number" 'index($0, keys) == 1 {
                name = substr($0, length(keys) + 1)
                if (name ~ "^(session|identity-key)-" number "(_[0-9]+)?[.]" ||
                    (name ~ "^sender-key-.*::" number "(_[0-9]+)?::" && name !~ /^sender-key-memory-/)) print
            }' "$work/every"
        done
    done | sort -u
}

put_away_files() { # put_away_files FOLDER TARGET: what $work/names lists; a copy that reads the same comes first
    [ -s "$work/names" ] || return 0
    mkdir -p "$2/files"
    while IFS= read -r name; do
        cp -p "$1/$name" "$2/files/$name" && cmp -s "$1/$name" "$2/files/$name" || return 1
        echo "file $name $(cksum <"$2/files/$name")" >>"$2/manifest"
    done <"$work/names"
    sync
    while IFS= read -r name; do rm -f "$1/$name"; done <"$work/names"
}
put_away_keys() { # put_away_keys TARGET: what $work/keys lists, each dumped, and the dump proved by Redis itself
    [ -s "$work/keys" ] || return 0
    mkdir -p "$1/keys"
    number=0
    while IFS= read -r key; do
        number=$((number + 1)) dump=$1/keys/$number.dump
        redis DUMP "$key" >"$dump.new" </dev/null || return 1
        bytes=$(($(wc -c <"$dump.new") - 1)) # redis-cli ends its answer with a newline
        if [ "$bytes" -le 0 ]; then rm "$dump.new"; continue; fi
        head -c "$bytes" "$dump.new" >"$dump"
        rm "$dump.new"
        [ "$(redis -x RESTORE "wa-repair:$$" 60000 <"$dump")" = OK ] || return 1
        redis DEL "wa-repair:$$" >/dev/null </dev/null || return 1
        echo "key $number.dump $key" >>"$1/manifest"
    done <"$work/keys"
    if [ -e "$1/manifest" ]; then echo "# a key comes back with: redis-cli -x RESTORE KEY 0 <FILE" >>"$1/manifest"; fi
    sync
    while IFS= read -r key; do
        gone=$(redis UNLINK "$key" </dev/null)
        case $gone in [0-9]*) ;; *) redis DEL "$key" >/dev/null </dev/null || return 1 ;; esac
    done <"$work/keys"
}

put_away() { # put_away SESSION PEERS: what is damaged of a session that does not run
    stamp=$(date -u +%Y%m%dT%H%M%SZ) number=1
    while ! { mkdir -p "$BACKUP_DIR/$1" && mkdir "$BACKUP_DIR/$1/$stamp.$number" 2>/dev/null; }; do
        number=$((number + 1))
        [ $number -lt 100 ] || return 1
    done
    target=$BACKUP_DIR/$1/$stamp.$number removed=
    find_damaged "$1" "$2" || return 1
    if [ -n "$SESSIONS_DIR" ] && [ -d "$(folder_of "$1")" ]; then
        if [ $reset = yes ]; then
            mv "$(folder_of "$1")" "$target/folder" || return 1
            removed="its folder"
        else
            put_away_files "$(folder_of "$1")" "$target" || return 1
            removed="$(wc -l <"$work/names" | tr -d ' ') files"
        fi
    fi
    if [ -n "$redis_url" ]; then
        put_away_keys "$target" || return 1
        removed="${removed:+$removed and }$(wc -l <"$work/keys" | tr -d ' ') keys"
    fi
    rmdir "$target" 2>/dev/null || true
    note INFO "$1" "backed up and removed ${removed:-nothing: neither SESSIONS_DIR nor REDIS_URL holds it}"
}
find_damaged() { # into $work/names and $work/keys
    : >"$work/names" && : >"$work/keys"
    if [ -n "$SESSIONS_DIR" ] && [ $reset = no ]; then damaged_files "$(folder_of "$1")" "$2" >"$work/names"; fi
    if [ -n "$redis_url" ]; then damaged_keys "$1" "$2" >"$work/keys" || return 1; fi
}

# Files may go only while the server holds nothing of the session in its memory: it would write its
# old record back. Most answer a disconnect before they did it, so it must say so, twice.
wait_until_down() { # wait_until_down SESSION SECONDS: else $why says what it shows
    until=$(($(date +%s) + $2)) seen=0
    while :; do
        if try "$(with_id "$STATE_ROUTE" "$1")"; then
            state=$(json_value status)
            why="it shows ${state:-no status}"
            case $state in
            DISCONNECTED | PENDING | TIMEOUT | disconnected | close | closed) seen=$((seen + 1)) ;;
            *) seen=0 ;;
            esac
            if [ $seen -ge 2 ]; then return 0; fi
        fi
        if [ "$(date +%s)" -ge "$until" ] || [ $stopping = yes ]; then return 1; fi
        sleep "$POLL"
    done
}
stays_away() { # stays_away SESSION: what was removed was not written again, and it is still down
    sleep "$POLL"
    wait_until_down "$1" 2 || { why="the server connected it meanwhile: $why"; return 1; }
    while IFS= read -r name; do
        if [ -e "$(folder_of "$1")/$name" ]; then why="its keys were written again: something still runs it"; return 1; fi
    done <"$work/names"
    if [ $reset = yes ] && [ -n "$SESSIONS_DIR" ] && [ -e "$(folder_of "$1")/creds.json" ]; then
        why="its keys were written again: something still runs it"
        return 1
    fi
}

wait_until_connected() { # wait_until_connected SESSION: else $why says what it shows
    until=$(($(date +%s) + WAIT)) state=
    while :; do
        sleep "$POLL"
        if try "$(with_id "$STATE_ROUTE" "$1")"; then
            state=$(json_value status)
            why="it shows ${state:-no status}"
            case $state in CONNECTED | connected | open) return 0 ;; esac
            if [ $reset = yes ]; then case $state in qrcode | QRCODE) return 0 ;; esac; fi
        fi
        if [ "$(date +%s)" -ge "$until" ] || [ $stopping = yes ]; then return 1; fi
    done
}

disconnect() { # disconnect SESSION: some servers refuse to disconnect what is not connected
    if try "$(with_id "$DISCONNECT_ROUTE" "$1")"; then return 0; fi
    refused=$why refused_code=$code
    case $code in 401 | 403 | 404) return 1 ;; 4??) if wait_until_down "$1" 2; then return 0; fi ;; esac
    why=$refused code=$refused_code
    return 1
}

repair() { # repair SESSION PEERS WHY: one round; $result says how it went, $status as an exit status
    begun=$(date +%s) status=0 state='' code=''
    echo "$2" >"$STATE_DIR/underway/.$1.new"
    mv "$STATE_DIR/underway/.$1.new" "$STATE_DIR/underway/$1"
    note INFO "$1" "$3: disconnect"
    if ! disconnect "$1"; then
        status=$(status_of_code)
        result="cannot disconnect it: $why"
        # Who does not answer may have done it all the same.
        if [ "$status" = 5 ] || [ "$status" = 1 ]; then try "$(with_id "$START_ROUTE" "$1")" || [ "$code" != 000 ] || status=5; fi
    else
        if ! wait_until_down "$1" "$WAIT"; then
            status=1 result="not down after its disconnect: $why; nothing was removed"
        elif ! put_away "$1" "$2"; then
            status=1 result="cannot back up what is damaged: nothing more was removed"
        elif ! stays_away "$1"; then
            status=1 result="$why"
        fi
        note INFO "$1" "start-session"
        if ! try "$(with_id "$START_ROUTE" "$1")"; then
            status=$(status_of_code) result="cannot start it again: $why"
        elif [ "$status" = 0 ]; then
            note INFO "$1" "wait until it is connected"
            if wait_until_connected "$1"; then
                result="recovered"
                case $state in qrcode | QRCODE) result="begun afresh: scan its new code" ;; esac
            else
                status=1 result="not connected after $(($(date +%s) - begun)) s: $why"
                case $state in qrcode | QRCODE) needed=$((needed + 1)) result="needs a person: scan its code" ;; esac
            fi
        fi
    fi
    # Who could not be reached is not done with: the next round goes on with it.
    if [ "$status" != 5 ]; then rm -f "$STATE_DIR/underway/$1"; fi
    if [ "$status" = 0 ]; then
        if [ $reset = yes ]; then cleaned=$((cleaned + 1)); else repaired=$((repaired + 1)); fi
        repair_seconds=$((repair_seconds + $(date +%s) - begun))
        note INFO "$1" "$result in $(($(date +%s) - begun)) s"
    else
        failed=$((failed + 1))
        note ERROR "$1" "$result"
    fi
    keep_stats
}

# --- the round ----------------------------------------------------------------------------------

round_begun=$(date +%s)
if [ $dry_run = no ]; then
    if [ "$(wc -c <"$AUDIT_LOG")" -gt 10485760 ]; then mv "$AUDIT_LOG" "$AUDIT_LOG.1" && : >"$AUDIT_LOG"; fi
    find "$BACKUP_DIR" -mindepth 2 -maxdepth 2 -type d -mtime "+$KEEP_DAYS" -exec rm -rf {} +
fi
: >"$work/due"
if [ $reset = yes ]; then
    echo "$what 0 ," >"$work/due"
else
    find_errors
    over_threshold >"$work/over"
    for path in "$STATE_DIR"/underway/*; do
        # Cut off: it may stand disconnected, whatever the log says.
        if [ -f "$path" ]; then echo "${path##*/} 0 $(cat "$path")"; fi
    done >"$work/cut"
    awk 'NR == FNR { cut[$1]; print; next } !($1 in cut)' "$work/cut" "$work/over" |
        awk -v what="$what" -v unnamed="*" '$1 != unnamed && (what == "all" || $1 == what)' >"$work/due"
    lost=$(awk '$1 == "*" { print $2 }' "$work/over")
    if [ -n "$lost" ]; then
        note WARN "" "$lost errors name no session: set LOG_SESSION, or a LOG_FILE with {id}"
        echo "auto-fix-sessions: $lost errors name no session: set LOG_SESSION, or a LOG_FILE with {id}" >&2
    fi
fi
if [ $dry_run = no ]; then
    checked=$((checked + 1)) check_seconds=$((check_seconds + $(date +%s) - round_begun))
    keep_stats
fi

worst=0
while read -r session count peers; do
    is_id "$session" || continue
    cause="$count crypto errors in $((WINDOW / 60)) min"
    if [ "$count" = 0 ]; then cause="its last round was cut off"; fi
    if [ $reset = yes ]; then cause="somebody asked for a reset"; fi
    if [ $dry_run = yes ]; then
        find_damaged "$session" "$peers"
        if [ $reset = yes ]; then removes="its folder"; else removes="$(wc -l <"$work/names" | tr -d ' ') files"; fi
        row "$session" "$cause" "would do: disconnect, back up and remove $removes and $(wc -l <"$work/keys" | tr -d ' ') keys, start-session, wait"
        if [ $debug = yes ]; then sed "s/^/[$session] would remove /" "$work/names" "$work/keys" >&2; fi
        continue
    fi
    if [ $stopping = yes ]; then worst=75; break; fi
    repair "$session" "$peers" "$cause" </dev/null
    row "$session" "$cause" "$result"
    if [ "$status" != 0 ]; then worst=$status; fi
    if [ "$status" != 5 ] && [ $reset = no ]; then
        awk -v session="$session" '$3 != session' "$work/errors" >"$work/errors.left"
        mv "$work/errors.left" "$work/errors"
        remember "$work/positions" "$work/errors"
    fi
done <"$work/due"
if [ $shown = no ]; then echo "nothing needs a repair"; fi
exit "$worst"
