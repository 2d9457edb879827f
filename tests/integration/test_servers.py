from __future__ import annotations

import socket
from contextlib import ExitStack, closing
from pathlib import Path

import psycopg
import pytest
import redis
from factories.servers import postgres_server, redis_server, require_binary
from sqlalchemy import create_engine, inspect, make_url


def _answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.redis
def test_redis_is_gone_after_a_failed_test(tmp_path: Path) -> None:
    ports = []

    def failing_test() -> None:
        with redis_server(tmp_path) as url, redis.Redis.from_url(url) as client:
            ports.append(make_url(url).port or 0)
            assert client.ping()
            raise RuntimeError("failed")

    with pytest.raises(RuntimeError, match="failed"):
        failing_test()
    assert not _answers(ports[0])


@pytest.mark.postgres
def test_postgres_is_gone_after_a_failed_test_with_a_connection_open(tmp_path: Path) -> None:
    ports = []

    def failing_test(connections: ExitStack) -> None:
        with postgres_server(tmp_path) as url:
            ports.append(make_url(url).port or 0)
            address = make_url(url).set(drivername="postgresql").render_as_string()
            connection = connections.enter_context(closing(psycopg.connect(address)))
            assert connection.execute("SHOW fsync").fetchone() == ("off",)
            raise RuntimeError("failed")

    with ExitStack() as connections, pytest.raises(RuntimeError, match="failed"):
        failing_test(connections)
    assert not _answers(ports[0])


def test_each_test_gets_an_empty_database(database_url: str) -> None:
    engine = create_engine(database_url)
    assert inspect(engine).get_table_names() == []
    engine.dispose()


def test_each_test_gets_an_empty_redis(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", "behind")


def test_each_test_gets_an_empty_redis_again(redis_url: str) -> None:
    test_each_test_gets_an_empty_redis(redis_url)


def test_an_absent_program_skips_locally(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program"):
        require_binary("no-such-program")


def test_an_absent_program_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    with pytest.raises(pytest.fail.Exception, match="no-such-program"):
        require_binary("no-such-program")


def test_the_systems_programs_come_before_those_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shadow = tmp_path / "setpriv"
    shadow.write_text("#!/bin/sh\n")
    shadow.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert require_binary("setpriv") == Path("/usr/bin/setpriv")
