#!/bin/sh
# Daily backup for cron: a checked, compressed dump; those older than KEEP_DAYS go; a line in BACKUP_DIR/backup.log.
#
#   0 2 * * * /path/to/ops/backup.sh
#
# BACKUP_DIR   where to (default: backups beside this folder)      KEEP_DAYS   how long (default: 30)
# ATB          the atb program, where it is not beside this script, in ../.venv/bin, or on the PATH
#
# Exit code 0: a good backup was made. Anything else: none was, the older ones stay, and stderr (which cron mails) and
# the log say why: 2 a setting, 6 the database or the disk or another backup that still runs, 127 atb was not found.
# shellcheck disable=SC1091,SC2154 # common.sh
set -eu

self=$0
while [ -L "$self" ]; do # called through a link: what it sources is beside the file itself
    link=$(readlink "$self")
    case $link in /*) self=$link ;; *) self=$(dirname "$self")/$link ;; esac
done
. "$(dirname "$self")/common.sh"
BACKUP_DIR=$(absolute "${BACKUP_DIR:-$here/../backups}")
KEEP_DAYS=${KEEP_DAYS:-30}

atb=$(find_atb) || {
    text="Backup FAILED: atb was not found. Say where it is: ATB=/path/to/.venv/bin/atb"
    printf '%s\n' "$text" >&2
    mkdir -p "$BACKUP_DIR"
    printf '%s: %s\n' "$(date -u +%Y%m%d_%H%M%S)" "$text" >>"$BACKUP_DIR/backup.log"
    exit 127
}
exec "$atb" db backup --dir "$BACKUP_DIR" --keep-days "$KEEP_DAYS"
