"""The Grafana dashboards as typed Python: `uv run python -m monitoring.grafana.generate`.

A module per dashboard, which is a list of rows of panels; `panels` says what a panel is, `queries`
how the metrics are asked, and `grafana` turns both into Grafana's JSON with the pinned
`grafana-foundation-sdk`. The JSON is committed; a test holds it against these modules.
"""
