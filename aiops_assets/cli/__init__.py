"""The command line ``aiops``: thin, each command calls one function that the assets call too.

What belongs here: arguments, progress, tables, exit codes, and the supervisor of ``aiops up``. What does not: any logic
that something other than a person at a terminal needs. Imports beyond Typer stand inside the commands, so that
``aiops --help`` answers at once.
"""

from __future__ import annotations

import typer

from aiops_assets.cli import services
from aiops_assets.cli.backfill import backfill
from aiops_assets.cli.backup import backup, restore
from aiops_assets.cli.config import config
from aiops_assets.cli.demo import demo
from aiops_assets.cli.doctor import doctor
from aiops_assets.cli.evaluate import evaluate
from aiops_assets.cli.explain import explain
from aiops_assets.cli.golden_sets import golden
from aiops_assets.cli.incidents import alerts, incidents
from aiops_assets.cli.ingest import ingest
from aiops_assets.cli.keys import keys
from aiops_assets.cli.lake import lake
from aiops_assets.cli.llm import llm
from aiops_assets.cli.marts import marts
from aiops_assets.cli.output import Commands
from aiops_assets.cli.quarantine import quarantine
from aiops_assets.cli.query import query
from aiops_assets.cli.registry import registry
from aiops_assets.cli.reload import reload
from aiops_assets.cli.replay import replay
from aiops_assets.cli.restate import restate
from aiops_assets.cli.rules import rules
from aiops_assets.cli.shadow import shadow
from aiops_assets.cli.silence import silence
from aiops_assets.cli.sources import sources
from aiops_assets.cli.status import status
from aiops_assets.cli.storm import storm
from aiops_assets.cli.try_out import try_
from aiops_assets.cli.up import up

app = typer.Typer(
    name="aiops",
    cls=Commands,
    help="Raw device polls and webhooks in, explained incidents out.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(up)
app.command("try")(try_)
app.command()(demo)
for command in (
    status,
    alerts,
    query,
    ingest,
    shadow,
    doctor,
    backfill,
    backup,
    restore,
    replay,
    restate,
    services.init,
    reload,
    services.gateway,
    services.collect,
    services.listen,
):
    app.command()(command)
for sub in (
    incidents,
    explain,
    sources,
    silence,
    rules,
    quarantine,
    keys,
    config,
    lake,
    marts,
    registry,
    llm,
    golden,
    evaluate,
    storm,
):
    app.add_typer(sub)
