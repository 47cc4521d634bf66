"""The life of a server, the same for all: nothing kept is lost, nothing started is left over."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis

from onsale.embedded import EmbeddedError, EmbeddedPostgres, EmbeddedValkey
from onsale.embedded.binaries import find_postgres, find_valkey
from onsale.embedded.processes import Account
from onsale.embedded.server import EmbeddedServer

DEBIAN_REDIS = Path("/usr/bin/redis-server")

Server = EmbeddedPostgres | EmbeddedValkey
Make = Callable[[Path], Server]
RunSql = Callable[..., str]
WaitUntilEnded = Callable[[Iterable[psutil.Process]], None]

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes user")
only_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux' signals or /proc")


@pytest.fixture(
    params=[
        pytest.param(EmbeddedPostgres, id="postgres"),
        pytest.param(EmbeddedValkey, id="valkey"),
        pytest.param(
            lambda path: EmbeddedValkey(path, binary=DEBIAN_REDIS),
            id="redis",
            marks=pytest.mark.skipif(not DEBIAN_REDIS.exists(), reason="no redis-server here"),
        ),
    ]
)
def make(request: pytest.FixtureRequest) -> Make:
    """Makes a server on a folder."""
    made: Make = request.param
    return made


@pytest.fixture
def write_mark(run_sql: RunSql) -> Callable[[Server], None]:
    def write(server: Server) -> None:
        if isinstance(server, EmbeddedPostgres):
            run_sql(server.url, "CREATE TABLE mark AS SELECT 'kept' AS text")
        else:
            with redis.Redis.from_url(server.url) as client:
                # Written before it is answered; by default a crash may lose what was answered.
                client.config_set("appendfsync", "always")
                client.set("mark", "kept")

    return write


@pytest.fixture
def read_mark(run_sql: RunSql) -> Callable[[Server], str]:
    def read(server: Server) -> str:
        if isinstance(server, EmbeddedPostgres):
            return run_sql(server.url, "SELECT text FROM mark")
        with redis.Redis.from_url(server.url, decode_responses=True) as client:
            return str(client.get("mark"))

    return read


Write = Callable[[Server], None]
Read = Callable[[Server], str]


def processes_of(server: EmbeddedServer) -> list[psutil.Process]:
    leader = psutil.Process(server.pid)
    return [leader, *leader.children(recursive=True)]


def test_what_was_kept_outlives_a_stop_and_a_crash_at_one_address(
    make: Make,
    tmp_path: Path,
    write_mark: Write,
    read_mark: Read,
    wait_until_ended: WaitUntilEnded,
) -> None:
    server = make(tmp_path / "data")
    with server:
        url = server.url
        write_mark(server)
        crashed = processes_of(server)
        server.kill()
        assert not server.is_running
        wait_until_ended(crashed)
        server.start()
        assert read_mark(server) == "kept"
    with server:
        assert read_mark(server) == "kept"
        assert server.url == url
    with make(tmp_path / "data") as another:
        assert read_mark(another) == "kept"
        assert another.url == url


def test_a_server_that_crashed_by_itself_starts_again(tmp_path: Path) -> None:
    with EmbeddedValkey(tmp_path / "data") as server:
        pid = server.pid
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        assert not server.is_running
        server.start()
        assert server.pid != pid


def test_stop_and_kill_may_come_twice_or_too_early(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "data")
    server.stop()
    server.kill()
    with server:
        server.stop()
        server.kill()
        server.stop()
    with pytest.raises(EmbeddedError, match="not running"):
        _ = server.pid


def test_a_live_data_folder_is_refused_and_left_alone(
    make: Make, tmp_path: Path, write_mark: Write, read_mark: Read
) -> None:
    with make(tmp_path / "data") as server:
        write_mark(server)
        second = make(tmp_path / "data")
        with pytest.raises(EmbeddedError, match="already in use"):
            second.start()
        second.stop()
        with pytest.raises(EmbeddedError, match="already running"):
            server.start()
        assert read_mark(server) == "kept"


def test_a_folder_with_other_files_is_refused_and_left_alone(make: Make, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    before = tmp_path.stat()
    with pytest.raises(EmbeddedError, match="holds other files"):
        make(tmp_path).start()
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    assert (tmp_path.stat().st_mode, tmp_path.stat().st_uid) == (before.st_mode, before.st_uid)


def test_a_file_in_the_place_of_the_folder_is_refused(make: Make, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(EmbeddedError, match="choose another"):
        make(tmp_path / "data").start()


def test_server_and_folder_are_an_ordinary_users_and_the_parents_are_not_touched(
    make: Make, tmp_path: Path, write_mark: Write
) -> None:
    parent = tmp_path / ("long " * 40) / ("and longer " * 15)
    parent.mkdir(parents=True)
    tmp_path.chmod(0o700)
    chain = [parent, *parent.parents]
    before = [(path.stat().st_mode, path.stat().st_uid) for path in chain]
    with make(parent / "data, 'quoted' \"twice\" %20") as server:
        write_mark(server)
        user = Account.of_user("nobody" if os.geteuid() == 0 else os.geteuid())
        folder = server.data_dir.stat()
        assert folder.st_mode & 0o777 == 0o700
        assert folder.st_uid == user.uid
        for process in processes_of(server):
            with suppress(psutil.NoSuchProcess):  # Postgres' workers come and go
                assert set(process.uids()) == {user.uid}
                assert set(process.gids()) == {user.gid}
    assert [(path.stat().st_mode, path.stat().st_uid) for path in chain] == before


@only_root
def test_root_runs_a_server_as_the_owner_of_its_folder(tmp_path: Path) -> None:
    daemon = Account.of_user("daemon")
    (tmp_path / "data").mkdir()
    os.chown(tmp_path / "data", daemon.uid, daemon.gid)
    with EmbeddedValkey(tmp_path / "data") as server:
        assert psutil.Process(server.pid).uids().effective == daemon.uid
        kept = [path for path in server.data_dir.rglob("*") if path.is_file()]
        assert {path.stat().st_uid for path in kept} == {daemon.uid}


def as_ordinary_user(account: Account, act: Callable[[], None]) -> int:
    """Run `act` in a fork that has become `account`; 0 if it returned."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    status = 1
    try:
        os.setgroups([])
        os.setresgid(account.gid, account.gid, account.gid)
        os.setresuid(account.uid, account.uid, account.uid)
        act()
        status = 0
    except BaseException:
        traceback.print_exc()
    os._exit(status)


@pytest.fixture
def ordinary_user() -> Account:
    """One who can run the wheels' programs where they are; when not root, we are one anyway."""
    nobody = Account.of_user("nobody")
    if find_postgres(nobody) != find_postgres(None) or find_valkey(nobody) != find_valkey(None):
        pytest.skip("ordinary users cannot enter the folder of this environment")
    return nobody


@pytest.fixture
def home(ordinary_user: Account) -> Iterator[Path]:
    """A private folder of the ordinary user."""
    path = Path(tempfile.mkdtemp())
    os.chown(path, ordinary_user.uid, ordinary_user.gid)
    yield path
    shutil.rmtree(path)


@only_root
def test_an_ordinary_user_runs_a_server_as_itself(
    make: Make, home: Path, ordinary_user: Account
) -> None:
    def live() -> None:
        with make(home / "data") as server:
            assert psutil.Process(server.pid).uids().effective == ordinary_user.uid
            server.kill()
            server.start()

    assert as_ordinary_user(ordinary_user, live) == 0


@only_root
def test_an_ordinary_user_is_refused_the_folder_of_another(
    make: Make, home: Path, ordinary_user: Account
) -> None:
    home.chmod(0o755)
    (home / "data").mkdir(mode=0o777)

    def be_refused() -> None:
        with pytest.raises(EmbeddedError, match="belongs to another user"):
            make(home / "data").start()

    assert as_ordinary_user(ordinary_user, be_refused) == 0


OWNER_OF_SERVERS = """
import signal, sys
from pathlib import Path
from onsale.embedded import EmbeddedPostgres, EmbeddedValkey
servers = [EmbeddedPostgres(Path(sys.argv[1], "pg")), EmbeddedValkey(Path(sys.argv[1], "valkey"))]
for server in servers:
    server.start()
print(*(server.pid for server in servers), flush=True)
signal.pause()
"""


@only_linux
def test_no_server_outlives_an_owner_that_is_killed(
    tmp_path: Path, wait_until_ended: WaitUntilEnded
) -> None:
    command = [sys.executable, "-c", OWNER_OF_SERVERS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as owner:
        assert owner.stdout is not None
        leaders = [psutil.Process(int(pid)) for pid in owner.stdout.readline().split()]
        family = [*leaders, *(child for each in leaders for child in each.children())]
        owner.kill()
    # At once: a start waits for the servers of the dead owner to end, rather than refuse.
    with EmbeddedPostgres(tmp_path / "pg"), EmbeddedValkey(tmp_path / "valkey"):
        wait_until_ended(family)
    assert "database system is shut down" in (tmp_path / "pg/server.log").read_text()
