#!/bin/sh
# Full and incremental copies of the whole server, for Postgres 17 or newer with summarize_wal = on (atb's own has it).
#
#   0 * * * * /path/to/ops/incremental.sh         every hour: an incremental one, once a day a full one
#
#   incremental.sh [auto]            a full one when the last is older than FULL_HOURS, else an incremental one
#   incremental.sh full              a full one now
#   incremental.sh incremental       an incremental one now; without a full one before it, an error
#   incremental.sh list              what there is
#   incremental.sh combine OUT [BACKUP]   put the newest (or BACKUP) together with all it builds on, in the new folder OUT
#
# BASE_DIR     where to (default: backups/base beside this folder)   KEEP_DAYS   how long (default: 3)
# FULL_HOURS   how often a full one is made (default: 24)
# ATB          the atb program, where it is not beside this script, in ../.venv/bin, or on the PATH
# PGBIN        the folder of your own server's programs: they must be of its version. They read your PG* variables.
#
# Exit code 0: it was done. Anything else: it was not, what was there stays, stderr and BASE_DIR/backup.log say why.
# shellcheck disable=SC1091,SC2154 # common.sh
set -eu

self=$0
while [ -L "$self" ]; do # called through a link: what it sources is beside the file itself
    link=$(readlink "$self")
    case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
. "$(dirname "$self")/common.sh"
BASE_DIR=$(absolute "${BASE_DIR:-${BACKUP_DIR:-$here/../backups}/base}")
KEEP_DAYS=${KEEP_DAYS:-3}
FULL_HOURS=${FULL_HOURS:-24}

log() {
    printf '%s: %s\n' "$(date -u +%Y%m%d_%H%M%S)" "$1" >>"$BASE_DIR/backup.log"
}

fail() {
    printf 'Error: %s\n' "$1" >&2
    [ ! -d "$BASE_DIR" ] || log "FAILED: $1" || true
    exit "${2:-1}"
}

# A program of Postgres: yours, or the one that comes with atb, which then also knows server and password.
pg() {
    program=$1
    shift
    if [ -n "${PGBIN:-}" ]; then
        "$PGBIN/$program" "$@"
    else
        "$atb" db "$program" "$@"
    fi
}

# One run at a time. The lock ends with the processes that hold it.
alone() {
    if command -v flock >/dev/null; then
        exec 9>"$BASE_DIR/.lock"
        flock -n 9 || fail "another run is at work in $BASE_DIR: nothing was done" 6
    else
        mkdir "$BASE_DIR/.lock.d" 2>/dev/null || fail "another run is at work (or was killed: rmdir $BASE_DIR/.lock.d)" 6
        trap 'rmdir "$BASE_DIR/.lock.d"' EXIT
    fi
}

# Compare the files of $1 with their manifest.
check() {
    if [ -n "$atb" ]; then
        "$atb" db check-base "$1" >&2
    else
        pg pg_verifybackup --quiet "$1"
    fi
}

# The backups, oldest first: base_TIME_full and base_TIME_incr. Names without spaces, by design.
all() {
    for path in "$BASE_DIR"/base_*_full "$BASE_DIR"/base_*_incr; do
        [ ! -f "$path/backup_manifest" ] || basename "$path"
    done | sort
}

newest() { all | tail -n 1; }

# The full one and all that build on it, up to $1.
chain_to() {
    chain=""
    for name in $(all); do
        case $name in *_full) chain="" ;; esac
        chain="$chain $name"
        if [ "$name" = "$1" ]; then
            printf '%s\n' "$chain"
            return
        fi
    done
    return 1
}

free_name() {
    while name=base_$(date -u +%Y%m%d_%H%M%S) && { [ -e "$BASE_DIR/${name}_full" ] || [ -e "$BASE_DIR/${name}_incr" ]; }; do
        sleep 1
    done
    printf '%s_%s\n' "$name" "$1"
}

# $1: full or incr; what follows is passed on. It gets its name when it is complete, checked and on the disk.
take() {
    kind=$1
    shift
    name=$(free_name "$kind")
    partial=$BASE_DIR/.partial_$name
    pg pg_basebackup --pgdata="$partial" --checkpoint=fast --wal-method=stream --no-password \
        --manifest-checksums=SHA256 "$@" || return 1
    check "$partial" || return 1
    mv "$partial" "$BASE_DIR/$name"
    sync
    log "$name completed, $(du -sk "$BASE_DIR/$name" | cut -f1) kB"
    printf '%s\n' "$BASE_DIR/$name"
}

full() {
    take full || fail "the full backup was not made; the reason is above" 6
    remove_old
}

incremental() {
    last=$(newest)
    [ -n "$last" ] || fail "there is no full backup in $BASE_DIR yet: incremental.sh full" 2
    take incr --incremental="$BASE_DIR/$last/backup_manifest"
}

auto() {
    recent=$(find "$BASE_DIR" -maxdepth 1 -name 'base_*_full' -mmin "-$((FULL_HOURS * 60 - 10))" | head -n 1)
    if [ -z "$recent" ]; then
        full
    elif ! incremental; then
        # Its WAL summaries may be gone (a server that was away for long, or restored): begin anew.
        log "the incremental backup was not made: trying a full one"
        rm -rf "$BASE_DIR"/.partial_*
        full
    fi
}

# A full backup goes together with all that build on it, when the last of them is too old. Never the newest.
remove_old() {
    members=""
    for name in $(all) end_full; do
        case $name in
        *_full)
            last=${members##* }
            if [ -n "$last" ] && [ "$name" != end_full ] &&
                [ -n "$(find "$BASE_DIR/$last" -maxdepth 0 -mtime "+$KEEP_DAYS")" ]; then
                for old in $members; do rm -rf "${BASE_DIR:?}/$old"; done
                log "removed$members"
            fi
            members=""
            ;;
        esac
        members="$members $name"
    done
}

combine() {
    [ -n "$1" ] || fail "say where to: incremental.sh combine OUT [BACKUP]" 2
    out=$(absolute "$1")
    last=$(basename "${2:-$(newest)}")
    chain=$(chain_to "$last") || fail "there is no backup '$last' in $BASE_DIR: incremental.sh list" 2
    [ ! -e "$out" ] || fail "$out exists already" 2
    set --
    for name in $chain; do set -- "$@" "$BASE_DIR/$name"; done
    if [ "$#" -eq 1 ]; then
        cp -Rp "$1" "$out"
    else
        pg pg_combinebackup --manifest-checksums=SHA256 --output="$out" "$@" || fail "the backups could not be put together; the reason is above" 3
    fi
    check "$out" || fail "$out is not whole; the reason is above" 3
    chmod 700 "$out"
    printf 'Put together in %s:%s\n' "$out" "$chain"
}

mode=${1:-auto}
atb=$(find_atb) || atb=""
[ -n "$atb${PGBIN:-}" ] || {
    mkdir -p "$BASE_DIR"
    fail "atb was not found. Say where it is: ATB=/path/to/.venv/bin/atb" 127
}
case $mode in
full | incremental | auto)
    mkdir -p "$BASE_DIR" || exit 6
    chmod 700 "$BASE_DIR"
    alone
    rm -rf "$BASE_DIR"/.partial_* # of a killed run
    case $mode in
    full) full ;;
    incremental) incremental || fail "the incremental backup was not made; the reason is above" 6 ;;
    auto) auto ;;
    esac
    ;;
list) all ;;
combine) combine "${2:-}" "${3:-}" ;;
*) fail "'$mode' is none of auto, full, incremental, list, combine" 2 ;;
esac
