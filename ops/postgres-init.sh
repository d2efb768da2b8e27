#!/bin/sh
# What the image's entry point runs once, on an empty volume, before the server can be reached from outside.
# POSTGRES_USER and POSTGRES_DB are made by then. No set -eu here: the entry point sources a file that is not executable.

# A database of the role's own name: `psql -U trading_bot` without a database means that one.
psql -X -v ON_ERROR_STOP=1 -v own="$POSTGRES_USER" --no-password --username "$POSTGRES_USER" --dbname "$POSTGRES_DB" <<'SQL' || exit 1
SELECT format('CREATE DATABASE %I', :'own') WHERE NOT EXISTS (SELECT 1 FROM pg_database WHERE datname = :'own') \gexec
CREATE EXTENSION IF NOT EXISTS pg_stat_statements;
SQL

# Base backups (ops/incremental.sh) over the published port, with the password.
printf 'host replication %s all scram-sha-256\n' "$POSTGRES_USER" >>"$PGDATA/pg_hba.conf" || exit 1
