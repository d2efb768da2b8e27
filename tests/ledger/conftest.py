"""A real Postgres for all tests of the ledger: the embedded server, migrated once; each module copies its database."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from atb.ledger.accounts import AccountRow, open_account, take_authority
from atb.ledger.connect import Where, connect
from atb.ledger.connect import embedded as where_of
from atb.ledger.embedded import Server, start, stop
from atb.ledger.migrate import migrate

MIGRATIONS = Path(__file__).resolve().parents[2] / "migrations"
TEMPLATE = "migrated"
# Not where the system takes ports from, and others than those of a test beside: a server that is down keeps its own.
FIRST_PORT = 11_000 + os.getpid() * 211 % 9_000

NewAccount = Callable[[], tuple[AccountRow, int]]


def make_template(server: Server) -> None:
    with connect(where_of(server, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {TEMPLATE}")
    migrate(where_of(server, TEMPLATE), MIGRATIONS)


def copy_template(server: Server, name: str, *, durable: bool) -> Where:
    """A fresh migrated database. durable: a commit waits for the disk, as it does in earnest."""
    with connect(where_of(server, "postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
        connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = {'on' if durable else 'off'}")
    return where_of(server, name)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    home = tmp_path_factory.mktemp("ledger")
    started = start(home, first_port=FIRST_PORT)
    try:
        make_template(started)
        yield started
    finally:
        stop(home)


@pytest.fixture(scope="module")
def where(server: Server, request: pytest.FixtureRequest) -> Where:
    return copy_template(server, request.module.__name__.rpartition(".")[2], durable=False)


@pytest.fixture(scope="module")
def shared(where: Where) -> Iterator[psycopg.Connection[Any]]:
    with connect(where) as connection:
        yield connection


@pytest.fixture
def connection(shared: psycopg.Connection[Any]) -> Iterator[psycopg.Connection[Any]]:
    yield shared
    shared.rollback()


@pytest.fixture(scope="module")
def new_account(shared: psycopg.Connection[Any]) -> NewAccount:
    """Makes an account that nobody else uses; returns it with an epoch that has authority over it."""
    numbers = itertools.count(1)

    def make() -> tuple[AccountRow, int]:
        account = open_account(shared, f"account {next(numbers)}", venue="paper", environment="paper", quote="USDT")
        shared.commit()
        return account, take_authority(shared, account.id)

    return make
