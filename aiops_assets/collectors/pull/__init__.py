"""Pulling from APIs: one poller for all of them, one small client a vendor.

What belongs here: requests with their limits, marks of how far each stream was read, and how each API is asked for what
is new. What does not: how the answers are read (``formats``) and when to ask (``scheduler``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aiops_assets.config import Pull

if TYPE_CHECKING:
    from aiops_assets.collectors.pull.poller import Client, PullPoller


def client_of(pull: Pull, **api: Any) -> Client:
    """The client of a pull; ``api`` goes to ``http.Api``."""
    if pull.kind == "datadog":
        from aiops_assets.collectors.pull.datadog import DatadogClient

        return DatadogClient(pull, **api)
    if pull.kind == "splunk":
        from aiops_assets.collectors.pull.splunk import SplunkClient

        return SplunkClient(pull, **api)
    if pull.kind == "thousandeyes":
        from aiops_assets.collectors.pull.thousandeyes import ThousandEyesClient

        return ThousandEyesClient(pull, **api)
    if pull.kind == "servicenow":
        from aiops_assets.collectors.pull.servicenow import ServiceNowClient

        return ServiceNowClient(pull, **api)
    from aiops_assets.collectors.pull.prometheus import PrometheusClient

    return PrometheusClient(pull, **api)


def poller_of(pull: Pull, state: Mapping[str, Any] | None = None) -> PullPoller:
    """The poller of a ``pull:`` entry with what an earlier one had saved."""
    from aiops_assets.collectors.pull.poller import PullPoller

    return PullPoller(pull, client_of(pull), state)
