"""Every alert leads to a page that helps, and every page belongs to an alert."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from onsale.observability import metrics

ROOT = Path(__file__).parents[2]
RUNBOOKS = ROOT / "docs/runbooks"
HEADINGS = ["What it means", "How to look", "How to act", "How to know it is over"]

assert metrics.build_info  # importing the catalogue is what fills the registry

METRICS = {family.name for family in REGISTRY.collect()}
SUFFIX = re.compile(r"_(total|bucket|count|sum)$")
NAME = re.compile(r"(?<![\w:])onsale_[a-z0-9_]+")
LINK = re.compile(r"\]\(([^)#]+)")


def rules(kind: str) -> list[dict[str, Any]]:
    """The committed rules that have this key."""
    return [
        rule
        for path in sorted((ROOT / "monitoring/prometheus/rules").glob("*.yml"))
        for group in yaml.safe_load(path.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if kind in rule
    ]


RECORDED = {rule["record"] for rule in rules("record")}


def page_faults(text: str) -> list[str]:
    """What is wrong with a page: headings, empty parts, links and metrics that lead nowhere."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    faults = [] if parts[1::2] == HEADINGS else [f"headings: {parts[1::2]}"]
    faults += [f"nothing below: {part}" for part in parts[2::2] if len(part.strip()) < 20]
    faults += [
        f"no such page: {link}"
        for link in LINK.findall(text)
        if "://" not in link and not (RUNBOOKS / link).exists()
    ]
    faults += [
        f"nothing reports {name}"
        for name in NAME.findall(text)
        if name not in METRICS and SUFFIX.sub("", name) not in METRICS
    ]
    faults += [
        f"nothing records {name}"
        for name in re.findall(r"\w+:onsale_\w+:\w+|onsale:\w+:\w+|instance:node\w+:\w+", text)
        if name not in RECORDED
    ]
    return faults


@pytest.mark.parametrize("page", sorted(RUNBOOKS.glob("*.md")), ids=lambda page: page.stem)
def test_the_page_is_whole(page: Path) -> None:
    assert page.read_text("utf-8").startswith(f"# {page.stem}\n")
    assert page_faults(page.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("## How to act", "## What now", "headings"),
        ("](RedisSlow.md)", "](RedisSlower.md)", "no such page"),
        ("onsale_gate_mode", "onsale_gate_moods", "nothing reports"),
    ],
)
def test_each_guard_can_fail(old: str, new: str, fault: str) -> None:
    text = (RUNBOOKS / "GateLedgerOnly.md").read_text("utf-8")
    assert old in text
    assert any(fault in found for found in page_faults(text.replace(old, new)))


def test_every_alert_has_its_page_and_no_page_is_left_over() -> None:
    for rule in rules("alert"):
        assert (ROOT / rule["annotations"]["runbook_url"]).stem == rule["alert"]
    assert {rule["alert"] for rule in rules("alert")} == {
        page.stem for page in RUNBOOKS.glob("*.md")
    }
