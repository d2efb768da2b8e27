# What backup.sh and incremental.sh share. They source it first.
# shellcheck shell=sh

here=$(cd "$(dirname "$0")" && pwd)
cd "$here/.." || exit # where .env is, with DATABASE_URL; folders are meant from where the caller is
absolute() { case $1 in /*) printf '%s\n' "$1" ;; *) printf '%s\n' "$OLDPWD/$1" ;; esac; }

# cron's PATH holds next to nothing.
find_atb() {
    if [ -n "${ATB:-}" ]; then
        candidates=$ATB
    else
        candidates="$here/atb
$here/../.venv/bin/atb
$(command -v atb || true)
${HOME:-}/.local/bin/atb"
    fi
    printf '%s\n' "$candidates" | while IFS= read -r candidate; do
        if [ -f "$candidate" ] && [ -x "$candidate" ]; then
            printf '%s\n' "$candidate"
            break
        fi
    done | grep .
}
