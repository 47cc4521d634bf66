"""Values as a person reads them."""

import pytest

from onsale.report.units import text


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0, "s", "0 s"),
        (0.00035, "s", "350 µs"),
        (0.0123, "s", "12.3 ms"),
        (1.5, "s", "1.5 s"),
        (600, "s", "10 min"),
        (0.9995, "percentunit", "100 %"),
        (0.0005, "percentunit", "0.05 %"),
        (1.5, "percentunit", "150 %"),
        (1536, "bytes", "1.5 KiB"),
        (3 * 1024**4, "Bps", "3 TiB/s"),
        (1_234.5, "reqps", "1,234/s"),
        (0.26, "ops", "0.26/s"),
        (1, "bool_on_off", "yes"),
        (0, "bool_on_off", "no"),
        (12_345, "none", "12,345"),
        (24_724_763, "none", "24.7 M"),
        (6e9, "none", "6 G"),
        (99.96, "none", "100"),
        (0.0000123, "none", "1e-05"),
    ],
)
def test_a_value_is_short_and_has_its_unit(value: float, unit: str, shown: str) -> None:
    assert text(value, unit) == shown
