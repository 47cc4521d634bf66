"""Values as a person reads them, by the unit that Grafana calls so."""

_MINUTE_SECONDS = 120
_SIZES = ("B", "KiB", "MiB", "GiB", "TiB")


def text(value: float, unit: str) -> str:
    """A value with its unit, as short as it can be said."""
    match unit:
        case "s":
            return _duration(value)
        case "percentunit":
            return f"{_short(value * 100)} %"
        case "bytes":
            return _size(value)
        case "Bps":
            return f"{_size(value)}/s"
        case "reqps" | "ops":
            return f"{_short(value)}/s"
        case "bool_on_off":
            return "yes" if value else "no"
        case _:
            return _short(value)


def _short(value: float) -> str:
    """Three figures, and up to a million all of those before the point."""
    if abs(value) >= 1_000_000:
        return f"{value / 1e6:,.3g} M" if abs(value) < 1e9 else f"{value / 1e9:,.3g} G"
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    if abs(value) >= 1:
        return f"{value:.3g}"
    return f"{value:.2g}" if abs(value) >= 0.001 else f"{value:.0e}"


def _duration(value: float) -> str:
    if value == 0:
        return "0 s"
    if abs(value) < 0.001:
        return f"{_short(value * 1e6)} µs"
    if abs(value) < 1:
        return f"{_short(value * 1e3)} ms"
    if abs(value) < _MINUTE_SECONDS:
        return f"{_short(value)} s"
    return f"{_short(value / 60)} min"


def _size(value: float) -> str:
    for name in _SIZES[:-1]:
        if abs(value) < 1024:
            return f"{_short(value)} {name}"
        value /= 1024
    return f"{_short(value)} {_SIZES[-1]}"
