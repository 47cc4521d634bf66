"""Logs: one JSON object a line, with the request's id where there is a request."""

import logging
import sys
from time import perf_counter
from typing import Any

import structlog

from onsale.observability import metrics


class MeasuredHandler(logging.StreamHandler[Any]):
    """Writes lines where it is told to, and says for how long it kept the process from all else."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a disk or a pipe that is full is waited for."""
        started = perf_counter()
        super().emit(record)
        metrics.log_write_seconds_total.inc(perf_counter() - started)


def configure_logging(level: str, *, traced: bool = False) -> None:
    """Send this process's logs, and those of the libraries, to standard error as JSON; with the
    ids of the trace that a line belongs to, if there are traces.
    """
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if traced:
        from onsale.observability.tracing import add_trace_ids

        shared.append(add_trace_ids)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelName(level)),
        cache_logger_on_first_use=True,
    )
    handler = MeasuredHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Every request is counted and timed; a line for each would cost more than the request.
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("httpx").setLevel(logging.WARNING)


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module; `log.info("what happened", key=value)`."""
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name)
    return logger
