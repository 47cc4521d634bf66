"""Summaries that are not there, or are not ours."""

from pathlib import Path

import pytest

from onsale.loadtests import GeneratorUse, LoadTestError, Run
from onsale.loadtests.summary import read_result


@pytest.mark.parametrize("text", [None, "", "{}", '{"metrics": {}, "state": {}}', "[]"])
def test_an_unusable_summary_is_an_error_of_one_line(tmp_path: Path, text: str | None) -> None:
    summary = tmp_path / "summary.json"
    if text is not None:
        summary.write_text(text)

    with pytest.raises(LoadTestError) as raised:
        read_result(
            summary,
            report=tmp_path / "r.html",
            k6_exit_code=0,
            k6_cpu_seconds=0.0,
            run=Run("r", 100, 0.0, 1.0, GeneratorUse(2, 0.0, 0.0, 0.0, 1.0)),
        )

    assert str(summary) in str(raised.value)
    assert "\n" not in str(raised.value)
