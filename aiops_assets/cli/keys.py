"""``aiops keys``: who may send, read and act."""

from __future__ import annotations

from typing import Annotated

import typer

from aiops_assets.cli.output import USAGE, ago, clean, complain, console, fail, group, load, print_json, table

keys = group("keys", "Keys for the gateway: create, list, revoke.")


@keys.command("create")
def create(
    name: Annotated[str, typer.Argument(help="What the key is for, for people.")],
    source: Annotated[
        list[str] | None,
        typer.Option(help="May send to this source only; may be repeated. Default: all.", show_default=False),
    ] = None,
    role: Annotated[str, typer.Option(help="send, read (and see pages) or operate (and act on incidents).")] = "send",
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Make a key and print it. It is kept nowhere in clear, so store it now.

    Example:

      aiops keys create telegraf-berlin --source telegraf
    """
    from typing import cast

    from pydantic import ValidationError

    from aiops_assets.gateway.keys import ANY_SOURCE, Role, create_key

    if role not in {"send", "read", "operate"}:
        fail(f"role {role!r}: allowed are send, read, operate", USAGE)
    try:
        made, clear = create_key(load().paths.keys, name, sources=source or (ANY_SOURCE,), role=cast(Role, role))
    except ValidationError as error:
        fail("\n".join(f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in error.errors()), USAGE)
    if as_json:
        print_json({"id": made.id, "name": made.name, "role": made.role, "sources": made.sources, "key": clear})
        return
    typer.echo(clear)
    complain(f"key {made.id} ({made.role}, sources: {', '.join(made.sources)}); it is not shown again")


@keys.command("list")
def list_(as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False) -> None:
    """Show all keys ever made, without their secrets."""
    from aiops_assets.gateway.keys import list_keys

    found = list_keys(load().paths.keys)
    if as_json:
        print_json([key.model_dump(exclude={"digest"}) for key in found])
        return
    shown = table("id", "name", "role", "sources", "made", "revoked")
    for key in found:
        revoked = ago(key.revoked_at) if key.revoked_at else "–"
        shown.add_row(key.id, clean(key.name), key.role, clean(", ".join(key.sources)), ago(key.created_at), revoked)
    console().print(shown)


@keys.command("revoke")
def revoke(key_id: Annotated[str, typer.Argument(help="The id, from `aiops keys list`.")]) -> None:
    """End a key; the gateway refuses it within a second or two."""
    from aiops_assets.gateway.keys import UnknownKey, revoke_key

    try:
        revoke_key(load().paths.keys, key_id)
    except UnknownKey:
        fail(f"there is no key {key_id!r}; see: aiops keys list")
    console().print(f"key {clean(key_id)} is revoked")
