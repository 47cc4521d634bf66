"""The six dashboards, in the order in which an engineer looks at them."""

from monitoring.grafana.generate.bottleneck import BOTTLENECK
from monitoring.grafana.generate.flash_sale import FLASH_SALE
from monitoring.grafana.generate.infrastructure import INFRASTRUCTURE
from monitoring.grafana.generate.sale import SALE
from monitoring.grafana.generate.service import SERVICE
from monitoring.grafana.generate.workers import WORKERS

DASHBOARDS = (FLASH_SALE, BOTTLENECK, SERVICE, SALE, INFRASTRUCTURE, WORKERS)
