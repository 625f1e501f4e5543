"""The parts of the platform as commands of their own: for ``aiops up``, for containers, for service files."""

from __future__ import annotations

import typer

from aiops_assets.cli.output import clean, console, load


def init() -> None:
    """Make the home folder: aiops.yaml, keys, Dagster home. Starts nothing; what exists stays.

    Example:

      AIOPS_HOME=/srv/aiops aiops init
    """
    from aiops_assets.cli.up import prepare, program

    settings = load()
    prepare(settings)
    home = settings.paths
    out = console()
    out.print(f"home      {clean(home.root)}")
    out.print(f"settings  {clean(home.config)}")
    out.print(f"key       {clean(home.keys / 'admin.key')}")
    out.print(f"Start it with: {program()} up")


def gateway() -> None:
    """Run the gateway alone: webhooks, incident pages, health and metrics.

    Example:

      AIOPS_GATEWAY_PORT=8080 aiops gateway
    """
    from aiops_assets.gateway.app import serve

    settings = load()
    settings.paths.create()
    serve(settings)


def collect() -> None:
    """Run the collector alone: this machine and the devices in aiops.yaml.

    Example:

      aiops collect
    """
    from aiops_assets.collectors.scheduler import run
    from aiops_assets.observability.logging import configure

    settings = load()
    settings.paths.create()
    configure("collector", None, settings.log_level)
    raise typer.Exit(run(settings))


def listen() -> None:
    """Run the listener alone: syslog and SNMP traps, at the addresses under `listen` in aiops.yaml.

    Example:

      aiops listen
    """
    from aiops_assets.collectors.listener import run
    from aiops_assets.observability.logging import configure

    settings = load()
    settings.paths.create()
    configure("listener", None, settings.log_level)
    raise typer.Exit(run(settings))
