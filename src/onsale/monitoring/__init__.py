"""Prometheus, Alertmanager and the exporters beside a running service, on the shipped files.

`service` says what is watched; `configuration` adapts what lies in `monitoring/` to its addresses;
`stack` runs it.
"""

from onsale.monitoring.service import Service
from onsale.monitoring.stack import MonitoringStack, missing_packages

__all__ = ["Service", "MonitoringStack", "missing_packages"]
