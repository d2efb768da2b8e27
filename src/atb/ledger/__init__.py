"""The ledger in Postgres: entries that are only ever added, and the tables that follow from them."""
