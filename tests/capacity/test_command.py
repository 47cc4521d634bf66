"""The command: what people read fits the terminal, what programs read is all, mistakes are told."""

import json
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
from hypothesis import given
from rich.console import Console
from typer.testing import CliRunner

from onsale.capacity.check import Check, Compared
from onsale.capacity.check_text import render_check
from onsale.capacity.model import Name, OnSale, plan
from onsale.capacity.reference import Reference
from onsale.capacity.text import render
from onsale.cli import app
from tests.capacity.support import COSTS, SETUP, UNHURRIED
from tests.capacity.test_model import SALE, SALES

REFERENCE = Reference("bench.json", 2, 0.5, replace(COSTS, order_seconds=0.004))


def shown(sale: OnSale, reference: Reference = REFERENCE) -> str:
    console = Console(width=100, record=True, file=StringIO())
    render(plan(sale, reference.costs, SETUP), sale, SETUP, reference, console)
    return console.export_text()


def test_people_read_what_breaks_first_and_when() -> None:
    text = shown(SALE)
    assert "Breaks first: API processes, at 20,000 buyers/s" in text
    assert "0.4 s after the opening" in text
    assert "Not measured" not in text


def test_people_are_told_what_was_not_measured() -> None:
    text = shown(replace(SALE, pay_seconds=60), replace(REFERENCE, costs=replace(COSTS, pay=None)))
    assert "Not measured there, so left out: payments, the tier's row." in text


@UNHURRIED
@given(SALES)
def test_it_fits_a_terminal_of_100_columns(sale: OnSale) -> None:
    text = shown(sale)
    assert max(len(line.rstrip()) for line in text.splitlines()) <= 100
    assert "…" not in text


@pytest.mark.parametrize("arguments", [[], ["--check-demo"]])
def test_a_missing_file_is_told(arguments: list[str], tmp_path: Path) -> None:
    ended = CliRunner().invoke(app, ["capacity", "--from", str(tmp_path / "none.json"), *arguments])
    assert ended.exit_code == 1
    assert ended.stderr.startswith("onsale: ")
    assert "none.json cannot be read: No such file or directory" in ended.stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--buyers", "0"),
        ("--tickets", "0"),
        ("--minutes", "0"),
        ("--peak-factor", "0.5"),
        ("--peak-seconds", "0"),
        ("--presses", "0"),
        ("--tickets-per-order", "0"),
        ("--pay-minutes", "-1"),
        ("--utilisation", "1.5"),
    ],
)
def test_a_sale_that_cannot_be_is_one_line(option: str, value: str) -> None:
    ended = CliRunner().invoke(app, ["capacity", option, value])
    assert ended.exit_code == 1
    assert ended.stderr.startswith("onsale: ")
    assert ended.stderr.count("\n") == 1
    assert not ended.stdout


def test_programs_read_everything() -> None:
    arguments = ["capacity", "--buyers", "100000", "--tickets", "1000", "--minutes", "1"]
    ended = CliRunner().invoke(app, [*arguments, "--workers", "3", "--json"])
    assert ended.exit_code == 0, ended.output
    found = json.loads(ended.stdout)
    assert (found["workers"], found["orders"]) == (3, 500)
    assert found["first_to_break"] in set(Name)
    assert {part["name"] for part in found["parts"]} == set(Name)
    assert found["measured"]["name"] == "loadtest/bench/reference.json"


def test_nobody_pays_where_there_is_no_time_to() -> None:
    ended = CliRunner().invoke(app, ["capacity", "--pay-minutes", "0", "--json"])
    assert json.loads(ended.stdout)["paid_seconds"] is None


def test_a_deviation_is_a_share_of_what_was_measured() -> None:
    near, far = Compared("near", "s", 1.25, 1.0), Compared("far", "s", 0.7, 1.0)
    assert near.deviation == pytest.approx(0.25)
    assert far.deviation == pytest.approx(-0.3)
    assert (near.well, far.well) == (True, False)
    assert Compared("nothing", "s", 0, 0).well
    assert not Compared("something of nothing", "s", 1, 0).well
    console = Console(width=100, record=True, file=StringIO())
    for figures in ([near], [near, far]):
        check = Check(figures, batch=far, cores=2.0, crowd_us=300.0, reference=REFERENCE)
        assert check.as_json()["well"] is check.well
        render_check(check, console)
    text = console.export_text()
    assert "Every figure is within 25%." in text
    assert "Not every figure is within 25%." in text
    assert "+25%" in text
    assert "-30%" in text
