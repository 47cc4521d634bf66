"""The command line: `onsale --help` lists the commands.

Every command imports what it needs when it runs: `token` starts no web framework, and the image
that only serves leaves the load generator and the embedded servers out.
"""

import contextlib
import json
import os
import secrets
import shlex
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pydantic import SecretStr, ValidationError
from rich.console import Console

from onsale.settings import Settings

if TYPE_CHECKING:
    from onsale.capacity.model import Setup
    from onsale.capacity.reference import Reference
    from onsale.demo.sale import Verdict
    from onsale.demo.stack import Stack
    from onsale.monitoring import MonitoringStack, Service
    from onsale.workers.main import WorkerKind

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Sells tickets at the moment everybody wants them.",
)

_FAILED = 1
_MISUSED = 2
# How long after a load test the page still looks.
_AFTERMATH_SECONDS = 2.0

Workers = Annotated[int, typer.Option(min=1, max=64, help="API processes on one port.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object and nothing else.")]
ReportDir = Annotated[
    Path | None, typer.Option(help="Where k6 leaves its report (default: reports/… here).")
]


def main() -> None:
    """Run a command; what goes wrong is one line and an exit status, never a stack trace."""
    try:
        app(standalone_mode=True)
    except KeyboardInterrupt:
        sys.exit(130)


@contextlib.contextmanager
def _one_line_errors() -> Iterator[None]:
    """Errors that the user can do something about end the command with one line."""
    from onsale.domain.errors import LedgerUnavailable, OnsaleError

    try:
        yield
    except typer.Exit:
        raise
    except LedgerUnavailable:
        _fail("Postgres does not answer; is ONSALE_DATABASE_URL right?")
    except ValidationError as error:
        first = error.errors()[0]
        name = "ONSALE_" + "_".join(str(part) for part in first["loc"]).upper()
        _fail(f"{name if first['loc'] else 'settings'}: {first['msg']}", _MISUSED)
    except OnsaleError as error:
        _fail(f"{error.code}: {error.detail}")
    except (RuntimeError, ValueError, OSError) as error:
        _fail(str(error))
    except Exception as error:
        # Not foreseen, so a developer may want all of it.
        if os.environ.get("ONSALE_LOG_LEVEL") == "DEBUG":
            raise
        cause = _first_of(error)
        _fail(f"{type(cause).__name__}: {cause} (ONSALE_LOG_LEVEL=DEBUG shows where)")


def _first_of(error: BaseException) -> BaseException:
    """What failed in a group of tasks; the group itself says nothing."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _fail(line: str, status: int = _FAILED) -> None:
    typer.echo(f"onsale: {' '.join(line.split())}", err=True)
    raise typer.Exit(status)


@app.command()
def demo(
    buyers: Annotated[int, typer.Option(min=1, help="Distinct buyers.")] = 5_000,
    stock: Annotated[int, typer.Option(min=1, help="Tickets.")] = 1_000,
    seconds: Annotated[int, typer.Option(min=1, help="The spike's length.")] = 10,
    workers: Workers = 1,
    monitor: Annotated[
        bool, typer.Option("--monitor", help="With Prometheus and exporters; ends with a report.")
    ] = False,
    as_json: Json = False,
    report_dir: ReportDir = None,
) -> None:
    """Run a whole flash sale on this machine: stores, API, workers, crowd, audit."""
    _unwind_when_told_to_stop()
    with _one_line_errors(), tempfile.TemporaryDirectory(prefix="onsale-demo-") as folder:
        console = _console(as_json)
        console.print("[bold]onsale demo[/]: a flash sale against real Postgres and Valkey")
        with contextlib.ExitStack() as exits:
            stack = exits.enter_context(_stack(Path(folder), console, workers=workers))
            prometheus_url = None
            if monitor:
                monitoring = _monitoring(stack, Path(folder) / "monitoring", console)
                prometheus_url = exits.enter_context(monitoring).prometheus.url
            console.print(f"{buyers:,} buyers want {stock:,} tickets within {seconds} s")
            verdict, page = _run_scenario(
                "flash_sale",
                console,
                stack.base_url,
                stack.auth_secret,
                stock=stock,
                buyers=buyers,
                seconds=seconds,
                report_dir=report_dir or _new_report_dir("demo"),
                prometheus_url=prometheus_url,
            )
        _finish(verdict, console, as_json, page)


@app.command()
def dev(
    port: Annotated[int, typer.Option(min=1, max=65_535)] = 8000,
    data_dir: Annotated[
        Path | None, typer.Option(help="Where the data stays between runs (default: ./data).")
    ] = None,
    workers: Workers = 1,
) -> None:
    """Keep the embedded stack up with a demo event on sale, until stopped."""
    with _one_line_errors():
        console = Console(stderr=False)
        stopping = _stop_signal()
        folder = (data_dir or Path("data")).resolve()
        with _stack(folder, console, port=port, workers=workers) as stack:
            _print_dev(console, stack)
            while not stopping.wait(1.0):
                died = stack.died()
                if died is not None:
                    _fail(f"the {died} process ended; see {stack.logs_dir / died}.log")
            console.print("stopping")


@app.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Default: ONSALE_HOST.")] = None,
    port: Annotated[int | None, typer.Option(help="Default: ONSALE_PORT.")] = None,
    workers: Annotated[int | None, typer.Option(help="Default: ONSALE_WORKERS.")] = None,
) -> None:
    """Serve the API against ONSALE_DATABASE_URL and ONSALE_REDIS_URL."""
    with _one_line_errors():
        for name, value in (("HOST", host), ("PORT", port), ("WORKERS", workers)):
            if value is not None:
                os.environ[f"ONSALE_{name}"] = str(value)
        settings = Settings()
        if not settings.auth_is_configured:
            _fail(
                "set ONSALE_AUTH_SECRET (32 bytes or more, for example from"
                " `openssl rand -hex 32`) or ONSALE_AUTH_JWKS_URL",
                _MISUSED,
            )
        from onsale.http.server import serve as serve_api
        from onsale.observability.logging import configure_logging

        configure_logging(settings.log_level)
        serve_api(settings)


@app.command()
def worker(
    kind: Annotated[
        str | None,
        typer.Argument(help="sweeper, reconciler, outbox or webhooks; all if not given."),
    ] = None,
) -> None:
    """Run the workers against ONSALE_DATABASE_URL and ONSALE_REDIS_URL."""
    with _one_line_errors():
        import uvloop

        from onsale.observability.logging import configure_logging
        from onsale.observability.runtime import serve_metrics
        from onsale.workers.main import run

        settings = Settings()
        kinds = _worker_kinds(kind)
        configure_logging(settings.log_level, traced=bool(settings.tracing_endpoint))
        try:
            serve_metrics(settings.metrics_host, settings.worker_metrics_port)
        except OSError as error:
            _fail(f"ONSALE_WORKER_METRICS_PORT {settings.worker_metrics_port}: {error.strerror}")
        uvloop.run(run(settings, kinds))


@app.command()
def migrate(
    revision: Annotated[str, typer.Argument(help="Where to.")] = "head",
) -> None:
    """Bring the database of ONSALE_DATABASE_URL to the newest schema."""
    with _one_line_errors():
        from sqlalchemy.exc import SQLAlchemyError

        from onsale.ledger.migrations import migrate as migrate_to

        try:
            migrate_to(Settings().database_url, revision)
        except OSError:
            _fail("Postgres does not answer; is ONSALE_DATABASE_URL right?")
        except SQLAlchemyError as error:
            _fail(f"the database could not be migrated: {error.args[0] if error.args else error}")
        typer.echo("the ledger is up to date")


@app.command()
def token(
    subject: Annotated[str, typer.Option(help="Whom the token speaks for.")],
    scope: Annotated[str, typer.Option(help="Any of: buy admin ops.")] = "buy",
    hours: Annotated[float, typer.Option(min=0.001, max=8_760, help="How long it lives.")] = 12,
) -> None:
    """Print a token signed with ONSALE_AUTH_SECRET."""
    with _one_line_errors():
        from onsale.domain.ids import BUYER_ID
        from onsale.http.auth import Scope, make_token

        if not BUYER_ID.fullmatch(subject):
            _fail("--subject takes 1 to 255 visible ASCII characters, without spaces", _MISUSED)
        unknown = set(scope.split()) - set(Scope)
        if unknown or not scope.split():
            _fail(f"--scope takes any of: {' '.join(Scope)}", _MISUSED)
        typer.echo(make_token(_auth_secret(), subject, scope, timedelta(hours=hours)))


@app.command()
def audit(
    event: Annotated[str, typer.Argument(help="The event's id.")],
    as_json: Json = False,
) -> None:
    """Audit an event's books in both stores; the exit status says whether they balance."""
    with _one_line_errors():
        import asyncio

        found = asyncio.run(_audit(event))
        if as_json:
            typer.echo(json.dumps(found, indent=2))
        else:
            _print_audit(Console(), found)
        if not found["balanced"]:
            raise typer.Exit(_FAILED)


@app.command()
def loadtest(
    scenario: Annotated[str, typer.Argument(help="See `loadtest/README.md` for what there is.")],
    base_url: Annotated[
        str | None, typer.Option(help="A running service; by default one is started for the run.")
    ] = None,
    stock: Annotated[int | None, typer.Option(min=1)] = None,
    buyers: Annotated[int | None, typer.Option(min=1)] = None,
    seconds: Annotated[int | None, typer.Option(min=1)] = None,
    workers: Workers = 1,
    prometheus: Annotated[
        str | None,
        typer.Option(
            help="Told what k6 measures; the run ends with a report of both sides"
            " (default: ONSALE_PROMETHEUS_URL)."
        ),
    ] = None,
    as_json: Json = False,
    report_dir: ReportDir = None,
) -> None:
    """Run a k6 scenario on an event of its own, and audit the books after it."""
    _unwind_when_told_to_stop()
    with _one_line_errors(), contextlib.ExitStack() as exits:
        from onsale.loadtests import SCENARIOS

        if scenario not in SCENARIOS:
            _fail(f"no scenario {scenario!r}; there are: {', '.join(SCENARIOS)}", _MISUSED)
        defaults = SCENARIOS[scenario]
        console = _console(as_json)
        if base_url is None:
            folder = exits.enter_context(tempfile.TemporaryDirectory(prefix="onsale-loadtest-"))
            stack = exits.enter_context(_stack(Path(folder), console, workers=workers))
            base_url, auth_secret = stack.base_url, stack.auth_secret
        else:
            auth_secret = _auth_secret()
        console.print(f"[bold]{scenario}[/]: {defaults.description}")
        verdict, page = _run_scenario(
            scenario,
            console,
            base_url,
            auth_secret,
            stock=stock or defaults.stock,
            buyers=buyers or defaults.buyers,
            seconds=seconds or defaults.seconds,
            report_dir=report_dir or _new_report_dir(scenario),
            prometheus_url=prometheus or Settings().prometheus_url or None,
        )
        _finish(verdict, console, as_json, page)


@app.command()
def report(
    prometheus: Annotated[
        str | None,
        typer.Option(help="Where it answers (default: ONSALE_PROMETHEUS_URL, or port 9090 here)."),
    ] = None,
    testid: Annotated[
        str | None, typer.Option(help="A load test (default: the newest of the last day).")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(min=0.1, help="The last minutes, load test or not.")
    ] = None,
    audit_file: Annotated[
        Path | None, typer.Option("--audit", help="What `onsale audit --json` printed.")
    ] = None,
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
) -> None:
    """Draw a run as one HTML page: the panels of the dashboards, without Grafana."""
    with _one_line_errors():
        from onsale.bottleneck import read_verdict
        from onsale.report import Prometheus, find_run, write_report

        books = json.loads(audit_file.read_bytes()) if audit_file else None
        with Prometheus(_prometheus_url(prometheus)) as server:
            run = find_run(server, testid=testid, minutes=minutes)
            write_report(out, server, run, verdict=read_verdict(server, run), books=books)
        typer.echo(out)


@app.command()
def bottleneck(
    prometheus: Annotated[
        str | None,
        typer.Option(help="Where it answers (default: ONSALE_PROMETHEUS_URL, or port 9090 here)."),
    ] = None,
    testid: Annotated[
        str | None, typer.Option(help="A load test (default: the newest of the last day).")
    ] = None,
    begin: Annotated[
        datetime | None, typer.Option("--from", help="UTC; a time instead of a load test.")
    ] = None,
    end: Annotated[datetime | None, typer.Option("--to", help="UTC (default: now).")] = None,
    evidence: Annotated[
        bool, typer.Option("--evidence", help="With the queries that it rests on.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Name the stage that limited a run, since when, and what to try next."""
    with _one_line_errors():
        from onsale.bottleneck import read_verdict, render
        from onsale.bottleneck.text import as_json as verdict_as_json
        from onsale.report import Prometheus, find_run

        if begin is None and end is not None:
            _fail("--to needs --from", _MISUSED)
        between = (_unix(begin), _unix(end or datetime.now(UTC))) if begin else None
        with Prometheus(_prometheus_url(prometheus)) as server:
            verdict = read_verdict(server, find_run(server, testid=testid, between=between))
        if as_json:
            typer.echo(json.dumps(verdict_as_json(verdict)))
        else:
            render(verdict, Console(), evidence=evidence)


@app.command()
def monitor(
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Of a running `onsale dev` (default: ./data if one runs there; otherwise the"
            " service is where ONSALE_… say)."
        ),
    ] = None,
    prometheus_port: Annotated[int, typer.Option(min=0, max=65_535)] = 9090,
    alertmanager_port: Annotated[int, typer.Option(min=0, max=65_535)] = 9093,
    grafana_port: Annotated[int, typer.Option(min=0, max=65_535)] = 3000,
) -> None:
    """Watch a running `dev` or `serve` with what is on PATH, until stopped."""
    with _one_line_errors():
        from onsale.monitoring import MonitoringStack

        console = Console()
        stopping = _stop_signal()
        folder = (data_dir or Path("data")).resolve()
        with MonitoringStack(
            folder / "monitoring",
            _monitored_service(data_dir, folder),
            prometheus_port=prometheus_port,
            alertmanager_port=alertmanager_port,
            grafana_port=grafana_port,
            tell=lambda line: console.print(f"  {line}", style="dim"),
        ) as stack:
            _print_monitoring(console, stack)
            while not stopping.wait(1.0):
                died = stack.died()
                if died is not None:
                    _fail(f"{died.name} ended; see {died.log_path}")
            console.print("stopping")


@app.command()
def bench(
    quick: Annotated[
        bool, typer.Option("--quick", help="The suite `quick` in three rounds: under 90 s.")
    ] = False,
    suite: Annotated[
        list[str] | None,
        typer.Option(
            help="core, quick, disk, redis, live, events, workers, metrics, tracing, memory or"
            " capacity; several run as one. See `loadtest/README.md`."
        ),
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Turns of every variant.")] = None,
    seconds: Annotated[int, typer.Option(min=1, help="The length of a turn.")] = 1,
    connections: Annotated[int, typer.Option(min=1, max=4_096)] = 128,
    check: Annotated[
        bool, typer.Option("--check", help="Fail when the service falls short of a goal.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Measure what an order costs, beside routes that do nothing and services of other designs."""
    with _one_line_errors():
        from onsale.bench.goals import check_as_json, falls_short
        from onsale.bench.run import run
        from onsale.bench.text import render, render_check
        from onsale.bench.variants import suite_of

        console = _console(as_json)
        # Its tables need that; where there is less, their lines go on in the next.
        console.width = max(console.width, 100)
        with console.status("") as status:
            result = run(
                suite_of(suite or ["quick" if quick else "core"]),
                rounds=rounds or (3 if quick else 5),
                seconds=seconds,
                connections=connections,
                tell=status.update,
            )
        if as_json:
            typer.echo(json.dumps(result.as_json() | {"goals": check_as_json(result)}))
        else:
            render(result, console)
            if check:
                render_check(result, console)
        if result.faults or (check and falls_short(result)):
            raise typer.Exit(_FAILED)


@app.command()
def overload(
    rounds: Annotated[int, typer.Option(min=1, help="Turns of every crowd.")] = 3,
    seconds: Annotated[int, typer.Option(min=1, help="The length of a turn.")] = 4,
    check: Annotated[
        bool, typer.Option("--check", help="Fail when the service does not stand it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send up to three times as many buyers as can be served, and see how those fare who are."""
    with _one_line_errors():
        from onsale.bench.overload import run_overload
        from onsale.bench.text import render_overload

        console = _console(as_json)
        with console.status("") as status:
            result = run_overload(rounds=rounds, seconds=seconds, tell=status.update)
        if as_json:
            typer.echo(json.dumps(result.as_json()))
        else:
            render_overload(result, console)
        if result.faults or (check and not result.holds):
            raise typer.Exit(_FAILED)


@app.command()
def chaos(
    minutes: Annotated[
        float | None, typer.Option(min=0, help="Go on in turns until then (default: 10).")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Replays the course of another run.")] = None,
    faults: Annotated[str | None, typer.Option(help="name,… (default: all there are).")] = None,
    short: Annotated[
        bool, typer.Option("--short", help="One of each sort, once: less than three minutes.")
    ] = False,
    as_json: Json = False,
    report_dir: Annotated[
        Path | None, typer.Option(help="Where history and logs are left if it fails.")
    ] = None,
) -> None:
    """Break everything in turn under a sale on this machine, and hold the books against it."""
    _unwind_when_told_to_stop()
    with _one_line_errors():
        from onsale.chaos.faults import FAULTS, SHORT
        from onsale.chaos.run import chosen, run
        from onsale.chaos.text import render

        console = _console(as_json)
        report = run(
            chosen(faults or ",".join(SHORT if short else FAULTS)),
            seed=secrets.randbelow(1_000_000) if seed is None else seed,
            seconds=60 * (minutes if minutes is not None else 0 if short else 10),
            report_dir=report_dir or _new_report_dir("chaos"),
            tell=lambda line: console.print(f"  {line}", style="dim", highlight=False),
        )
        if as_json:
            typer.echo(json.dumps(report.as_json()))
        else:
            render(report, console)
        if not report.well:
            raise typer.Exit(_FAILED)


@app.command()
def capacity(
    buyers: Annotated[int, typer.Option(help="Who want a ticket.")] = 5_000_000,
    tickets: Annotated[int, typer.Option(help="How many there are.")] = 80_000,
    minutes: Annotated[float, typer.Option(help="Within which the buyers come.")] = 10,
    peak_factor: Annotated[
        float, typer.Option(help="The rate at the opening, in times of the mean.")
    ] = 10,
    peak_seconds: Annotated[float, typer.Option(help="How long the opening lasts.")] = 10,
    presses: Annotated[float, typer.Option(help="Requests of a buyer.")] = 2,
    tickets_per_order: Annotated[float, typer.Option(help="On average.")] = 2,
    pay_minutes: Annotated[
        float, typer.Option(help="Within which winners pay; 0: an event without payment.")
    ] = 2,
    workers: Annotated[
        int | None, typer.Option(min=1, help="API processes (default: as many as it takes).")
    ] = None,
    utilisation: Annotated[
        float, typer.Option(help="How much of a core to use at most, at the peak.")
    ] = 0.7,
    measured: Annotated[
        Path | None,
        typer.Option("--from", help="What `onsale bench --json` printed (default: a reference)."),
    ] = None,
    check_demo: Annotated[
        bool, typer.Option("--check-demo", help="Predict the demo on this machine, and run it.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Compute what an on-sale needs, and what breaks first; see docs/capacity.md."""
    with _one_line_errors():
        from onsale.capacity.reference import read_reference

        if check_demo:
            _check_demo(read_reference(measured) if measured else None, as_json)
            return
        from onsale.capacity.curve import Curve
        from onsale.capacity.model import OnSale, plan
        from onsale.capacity.text import render

        reference = read_reference(measured)
        arrivals = Curve.of_sale(buyers, minutes * 60, peak_factor, peak_seconds)
        sale = OnSale(arrivals, tickets, tickets_per_order, presses, pay_minutes * 60 or None)
        setup = _capacity_setup(workers, utilisation)
        found = plan(sale, reference.costs, setup)
        if as_json:
            typer.echo(json.dumps(found.as_json() | {"measured": reference.as_json()}))
        else:
            render(found, sale, setup, reference, Console())


# -- what the commands share


def _console(as_json: bool) -> Console:
    """Where people read; with `--json` the standard output is for the object alone."""
    return Console(stderr=True, quiet=True) if as_json else Console()


@contextlib.contextmanager
def _stack(folder: Path, console: Console, *, port: int = 0, workers: int = 1) -> Iterator["Stack"]:
    from onsale.demo.stack import Stack

    secret = os.environ.get("ONSALE_AUTH_SECRET") or secrets.token_hex(32)
    Settings(auth_secret=SecretStr(secret), auth_jwks_url=None)  # checks the secret's length
    with Stack(
        folder,
        secret,
        port=port,
        workers=workers,
        tell=lambda line: console.print(f"  {line}", style="dim"),
    ) as stack:
        yield stack


def _run_scenario(
    name: str,
    console: Console,
    base_url: str,
    auth_secret: str,
    *,
    stock: int,
    buyers: int,
    seconds: int,
    report_dir: Path,
    prometheus_url: str | None,
) -> "tuple[Verdict, Path | None]":
    """The verdict, and the page about it where a Prometheus was told."""
    from onsale.demo.client import ServiceClient
    from onsale.demo.sale import run_sale
    from onsale.demo.text import print_progress
    from onsale.loadtests import SCENARIOS

    verdict = run_sale(
        SCENARIOS[name],
        ServiceClient(base_url, auth_secret),
        base_url=base_url,
        auth_secret=auth_secret,
        stock=stock,
        buyers=buyers,
        seconds=seconds,
        report_dir=report_dir,
        env={},
        on_progress=lambda progress: print_progress(console, progress),
        prometheus_url=prometheus_url,
    )
    if prometheus_url is None:
        return verdict, None
    return verdict, _write_page(verdict, prometheus_url, report_dir / "run.html")


def _prometheus_url(given: str | None) -> str:
    """As given, as configured, or where `onsale monitor` starts one."""
    return given or Settings().prometheus_url or "http://127.0.0.1:9090"


def _unix(moment: datetime) -> float:
    """A time of the command line, which is UTC's unless it says otherwise."""
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def _write_page(verdict: "Verdict", prometheus_url: str, path: Path) -> Path:
    from onsale.bottleneck import read_verdict
    from onsale.report import Prometheus, await_scrape, find_run, write_report

    with Prometheus(prometheus_url) as prometheus:
        await_scrape(prometheus, verdict.load.run.ended_at + _AFTERMATH_SECONDS)
        run = find_run(prometheus, testid=verdict.load.run.testid)
        found = read_verdict(prometheus, run)
        write_report(path, prometheus, run, verdict=found, books=verdict.audit)
    return path


@contextlib.contextmanager
def _monitoring(stack: "Stack", folder: Path, console: Console) -> "Iterator[MonitoringStack]":
    from onsale.monitoring import MonitoringStack
    from onsale.report import Prometheus, await_scrape

    with MonitoringStack(
        folder,
        stack.service,
        # A spike of ten seconds is two points at the shipped interval.
        scrape_seconds=1,
        tell=lambda line: console.print(f"  {line}", style="dim"),
    ) as monitoring:
        with Prometheus(monitoring.prometheus.url) as prometheus:
            # It looks for its targets five seconds after its start, and the sale shall be seen
            # from its beginning.
            await_scrape(prometheus, time.time())
        yield monitoring


def _finish(verdict: "Verdict", console: Console, as_json: bool, page: Path | None = None) -> None:
    from onsale.demo.text import print_verdict

    if as_json:
        typer.echo(json.dumps(verdict.as_json() | {"page": str(page) if page else None}))
    else:
        print_verdict(console, verdict)
        if page is not None:
            console.print(f"Report: {page}", highlight=False, soft_wrap=True)
    if not verdict.well:
        raise typer.Exit(_FAILED)


def _capacity_setup(workers: int | None, utilisation: float) -> "Setup":
    from onsale.capacity.model import Setup
    from onsale.http.server import UVICORN_OPTIONS

    settings = Settings()
    return Setup(
        ledger_batch_size_max=settings.ledger_batch_size_max,
        batch_queue_size_max=settings.batch_queue_size_max,
        db_pool_size_max=settings.db_pool_size_max,
        redis_connections_max=settings.redis_connections_max,
        keep_alive_seconds=UVICORN_OPTIONS["timeout_keep_alive"],
        workers=workers,
        utilisation=utilisation,
    )


def _check_demo(reference: "Reference | None", as_json: bool) -> None:
    from onsale.capacity.check import check_demo
    from onsale.capacity.check_text import render_check

    _unwind_when_told_to_stop()
    console = _console(as_json)
    found = check_demo(
        reference, tell=lambda line: console.print(f"  {line}", style="dim", highlight=False)
    )
    if as_json:
        typer.echo(json.dumps(found.as_json()))
    else:
        render_check(found, console)
    if not found.well:
        raise typer.Exit(_FAILED)


def _new_report_dir(name: str) -> Path:
    return Path("reports") / f"{name}-{datetime.now(UTC):%Y%m%d-%H%M%S}"


def _auth_secret() -> str:
    secret = Settings().auth_secret
    if secret is None:
        _fail("set ONSALE_AUTH_SECRET to what the service checks tokens with", _MISUSED)
        raise AssertionError
    return secret.get_secret_value()


def _worker_kinds(kind: str | None) -> "list[WorkerKind]":
    from onsale.workers.main import WorkerKind

    if kind is not None and kind not in set(WorkerKind):
        _fail(f"no worker {kind!r}; there are: {', '.join(WorkerKind)}", _MISUSED)
    return [WorkerKind(kind)] if kind else list(WorkerKind)


async def _audit(event_id: str) -> dict[str, Any]:
    from onsale.domain.errors import NotFound
    from onsale.domain.ids import HEX_ID
    from onsale.http.routes.events import audit_out
    from onsale.sales.books import audit as audit_event
    from onsale.sales.service import Service

    service = Service.of(Settings())
    try:
        found = await service.events.get(event_id) if HEX_ID.fullmatch(event_id) else None
        if found is None:
            raise NotFound(f"there is no event {event_id!r}")
        grace_seconds = service.settings.reconciler_grace_seconds
        audited = await audit_event(found, service.gate, service.ledger, grace_seconds)
        return audit_out(audited).model_dump(mode="json")
    finally:
        await service.close()


def _print_audit(console: Console, found: dict[str, Any]) -> None:
    for tier in found["tiers"]:
        console.print(
            f"{tier['id']}: {tier['sold']:,} sold, {tier['held']:,} held,"
            f" {tier['available']:,} available of {tier['capacity']:,}",
            highlight=False,
        )
    for difference in found["differences"]:
        console.print(
            f"  {difference['kind']} {difference['subject']}: {difference['detail']}", style="red"
        )
    console.print("The books balance." if found["balanced"] else "The books do not balance.")


def _monitored_service(data_dir: Path | None, folder: Path) -> "Service":
    from onsale.monitoring import Service

    running = Service.running_on(folder)
    if running is None and data_dir is not None:
        _fail(f"no `onsale dev` runs on {folder}")
    return running or Service.of_settings(Settings())


def _print_monitoring(console: Console, stack: "MonitoringStack") -> None:
    from onsale.monitoring import missing_packages

    for found in (stack.prometheus, stack.alertmanager, stack.grafana):
        if found is not None:
            console.print(f"{found.name:<13} {found.url}", highlight=False)
    missing = missing_packages()
    if missing:
        console.print(f"missing, and left out: apt-get install {' '.join(missing)}", style="yellow")
    if stack.grafana is None:
        console.print("Grafana is not installed; its dashboards are in monitoring/grafana/.")
    console.print("Ctrl-C stops it; the data stays.")


def _unwind_when_told_to_stop() -> None:
    """Leave every context, and with it servers and folders, on SIGTERM and SIGHUP as on Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


def _stop_signal() -> threading.Event:
    """Set by SIGINT and SIGTERM."""
    stopping = threading.Event()
    for stop in (signal.SIGINT, signal.SIGTERM):
        signal.signal(stop, lambda *_: stopping.set())
    return stopping


def _print_dev(console: Console, stack: "Stack") -> None:
    from onsale.demo.client import ServiceClient
    from onsale.http.auth import make_token

    client = ServiceClient(stack.base_url, stack.auth_secret)
    on_sale = [event for event in client.events() if event["state"] == "open"]
    event = (
        on_sale[0]
        if on_sale
        else client.create_event(
            "The Last Waltz",
            [
                {"id": "ga", "name": "General admission", "price": 4_900, "capacity": 1_800},
                {"id": "balcony", "name": "Balcony", "price": 7_900, "capacity": 200},
            ],
            payment="card",
            max_per_buyer=4,
        )
    )
    day = timedelta(days=1)
    buy = make_token(stack.auth_secret, "buyer-1", "buy", day)
    admin = make_token(stack.auth_secret, "organiser-1", "buy admin ops", day)
    lines = (
        f"API      {stack.base_url}   docs {stack.base_url}/docs",
        f"metrics  http://127.0.0.1:{stack.metrics_port}/metrics (API)"
        f"   http://127.0.0.1:{stack.worker_metrics_port}/metrics (workers)",
        f"data     {stack.data_dir}",
        f"event    {event['name']}: {event['id']}",
        "",
        f"export EVENT={event['id']}",
        f"export BUY={buy}",
        f"export ADMIN={admin}",
        f"curl -X POST {stack.base_url}/v1/events/$EVENT/orders \\",
        '  -H "Authorization: Bearer $BUY" -H "Idempotency-Key: press-1" \\',
        "  -H 'Content-Type: application/json' \\",
        """  -d '{"items":[{"tier_id":"ga","quantity":2}]}'""",
        "",
        "For `onsale audit`, `token` and `loadtest --base-url` beside it:",
        f"export ONSALE_DATABASE_URL={shlex.quote(stack.database_url)}",
        f"export ONSALE_REDIS_URL={shlex.quote(stack.redis_url)}",
        f"export ONSALE_AUTH_SECRET={shlex.quote(stack.auth_secret)}",
        "",
        "Ctrl-C stops it; the data stays.",
    )
    for line in lines:
        console.print(line, highlight=False, soft_wrap=True, markup=False)
