#!/bin/sh
# For cron: are engines, database, drawdown and disk as they should be? An alert when one is not, or cannot be told.
#
#   */5 * * * * ALERT='mail -s "$SUBJECT" admin@example.com' /path/to/ops/monitor.sh
#   monitor.sh test      an alert now, to see that it arrives
#
# ALERT             a shell command that sends an alert: its text on stdin, its first line in $SUBJECT. Without one, stderr alone.
# MAX_DRAWDOWN      share of the peak (default: 0.15)      MIN_FREE_PERCENT   of the disks of atb (default: 10)
# REPEAT_MINUTES    how often what stays wrong is told again (default: 60)
# STATE_DIR         where it is kept what was told (default: ~/.local/state/atb)
# ATB               the atb program, where it is not beside this script, in ../.venv/bin, or on the PATH
#
# Exit code 0: all is well. 11: something is not, whether it was told now or before. 1: the alert could not be sent.
# 2: a setting is wrong. 127: atb was not found, which is an alert, too.
# shellcheck disable=SC1091,SC2154 # common.sh
set -u

self=$0
while [ -L "$self" ]; do # called through a link: what it sources is beside the file itself
    link=$(readlink "$self")
    case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
. "$(dirname "$self")/common.sh"
MAX_DRAWDOWN=${MAX_DRAWDOWN:-0.15}
MIN_FREE_PERCENT=${MIN_FREE_PERCENT:-10}
REPEAT_MINUTES=${REPEAT_MINUTES:-60}
STATE_DIR=$(absolute "${STATE_DIR:-${XDG_STATE_HOME:-${HOME:-/tmp}/.local/state}/atb}")
state=$STATE_DIR/monitor
PATIENCE_S=120 # for each question
# Of each account that is traded now or with money: how far it is under its peak.
DRAWDOWN="SELECT max((s.peak_balance - s.current_balance) / s.peak_balance) FROM (SELECT DISTINCT ON (account_id) *
FROM trading_sessions ORDER BY account_id, start_time DESC) s JOIN accounts a ON a.id = s.account_id
WHERE s.peak_balance > 0 AND a.venue <> 'replay' AND (s.status = 'RUNNING' OR a.environment = 'real')"

wrong() {
    printf 'Error: %s\n' "$1" >&2
    exit 2
}

# Is $1 a number, as in 10 or 0.15?
number() { printf '%s\n' "$1" | grep -Eq '^-?[0-9]+(\.[0-9]+)?$'; }

above() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a + 0 > b + 0) }'; }

# What hangs is as bad as what fails, and must not hold the next run up.
ask() {
    if command -v timeout >/dev/null; then
        timeout "$PATIENCE_S" "$atb" "$@" 2>&1
    else
        "$atb" "$@" 2>&1
    fi
}

found=""
names=""
problem() { # NAME TEXT
    names="$names $1"
    found="$found$2
"
}

engines() {
    told=$(ask health check) || problem engine "CRITICAL: an engine is not healthy, or none runs (exit code $?).
$told"
}

database() {
    told=$(ask db verify) || problem database "CRITICAL: the database is down, or does not tell what the ledger tells (exit code $?).
$told"
}

# No answer is no good news: the query fails, or there is no session.
drawdown() {
    told=$(ask db query "$DRAWDOWN") || {
        problem drawdown "WARNING: the drawdown cannot be told (exit code $?).
$told"
        return
    }
    share=$(printf '%s\n' "$told" | head -n 1)
    if ! number "$share"; then
        problem drawdown "WARNING: the drawdown cannot be told: no session has a peak."
    elif above "$share" "$MAX_DRAWDOWN"; then
        problem drawdown "WARNING: the drawdown is $share of the peak, above $MAX_DRAWDOWN."
    fi
}

disks() {
    for folder in . "${ATB_HOME:-${HOME:-.}}" "$STATE_DIR"; do
        while [ ! -e "$folder" ]; do folder=$(dirname "$folder"); done
        used=$(df -P "$folder" | awk 'NR == 2 { sub(/%/, "", $5); print $5 }')
        if ! number "$used"; then
            problem disk "WARNING: the free space of $folder cannot be told."
        elif [ $((100 - used)) -lt "$MIN_FREE_PERCENT" ]; then
            problem disk "WARNING: $((100 - used)) % of the disk of $folder is free, less than $MIN_FREE_PERCENT %."
            return
        fi
    done
}

# SUBJECT TEXT
send() {
    printf '%s\n%s\n' "$1" "$2" >&2
    if [ -z "${ALERT:-}" ]; then
        printf 'Note: ALERT is not set, so nobody was told but who reads this.\n' >&2
    elif ! printf '%s\n' "$2" | SUBJECT=$1 sh -c "$ALERT" >&2; then
        printf 'Error: the alert could not be sent: ALERT failed.\n' >&2
        exit 1
    fi
}

# Whether the same was told not long ago. A file that cannot be read is none.
told_before() {
    [ "$names" = "$(cat "$state" 2>/dev/null)" ] || return 1
    [ -z "$names" ] || [ -n "$(find "$state" -mmin "-$REPEAT_MINUTES" 2>/dev/null)" ]
}

remember() {
    mkdir -p "$STATE_DIR" 2>/dev/null && printf '%s\n' "$names" >"$state.$$" 2>/dev/null && mv "$state.$$" "$state" ||
        printf 'Note: %s cannot be written, so every run tells everything anew.\n' "$STATE_DIR" >&2
}

number "$MAX_DRAWDOWN" || wrong "MAX_DRAWDOWN=$MAX_DRAWDOWN is no number, as in 0.15"
for setting in "$MIN_FREE_PERCENT" "$REPEAT_MINUTES"; do
    case $setting in '' | *[!0-9]*) wrong "'$setting' is no whole number (MIN_FREE_PERCENT, REPEAT_MINUTES)" ;; esac
done
case ${1:-} in
'') ;;
test)
    send "Trading alert: a test" "This is a test of ops/monitor.sh. If you read it, alerts arrive."
    exit 0
    ;;
*) wrong "'$1' is not test" ;;
esac

code=11
if atb=$(find_atb); then
    engines
    database
    drawdown
    disks
else
    problem atb "CRITICAL: atb was not found, so nothing is watched. Say where it is: ATB=/path/to/.venv/bin/atb"
    code=127
fi
[ -n "$names" ] || code=0
if ! told_before; then
    if [ -n "$names" ]; then
        send "Trading alert:$names" "$found"
    elif [ -s "$state" ]; then
        send "Trading: all is well again" "Engines, database, drawdown and disk are as they should be."
    fi
    remember
fi
exit "$code"
