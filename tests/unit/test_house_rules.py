"""The rules of the house, read from the source: who may import whom, what may stand at a module's top, what never."""

from __future__ import annotations

import ast
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("aiops_assets", "jobs", "sensors")

#: rooms by layer; a room imports from its own layer and from those before it
LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"hours", "tables", "settings", "config", "partitions"}),
    frozenset({"privacy", "formats", "landing", "lake", "llm", "operations"}),
    frozenset(
        {
            "telemetry",
            "logs",
            "errors",
            "detection",
            "forecasting",
            "incidents",
            "remediation",
            "knowledge",
            "synthetic",
            "marts",
        }
        | {"promotion", "collectors"}
    ),
    frozenset({"live", "sources", "shadow", "replay", "care", "backup", "evaluation"}),
    frozenset({"observability"}),
    frozenset({"gateway"}),
    frozenset({"cli"}),
)
#: the Dagster side stands on top of everything but the servers and the command line
WIRING = ("definitions", "jobs", "sensors")
#: config needs the grammar of names, and settings need nothing
EXCEPTIONS = {("config", "landing")}
#: what learning and its libraries bring, and live sessions never need
HEAVY = frozenset(
    [
        "sklearn",
        "prophet",
        "great_expectations",
        "chromadb",
        "dbt",
        "dagster_dbt",
        "pandas",
        "openai",
        "ray",
        "matplotlib",
        "statsmodels",
        "scipy",
        "torch",
        "cmdstanpy",
        "skops",
        "plotly",
        "xgboost",
        "lightgbm",
        "transformers",
        "sentence_transformers",
    ]
)
#: heavy enough that only functions of the rooms named may import them
AT_HOME = {"pysnmp": {"collectors"}, "dagster_webserver": set(), "dagster_postgres": set()}
DAGSTER_PLACES = ("assets.py", "checks.py")
DAGSTER_FILES = {"aiops_assets/partitions.py", "aiops_assets/live/session.py", "aiops_assets/lake/io_manager.py"}
DAGSTER_FOLDERS = ("aiops_assets/definitions/", "aiops_assets/sources/", "jobs/", "sensors/")


def modules() -> list[Path]:
    return sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"), str(path))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path, *, top_level: bool = False) -> Iterator[tuple[str, int]]:
    """(module, line) of every import; those under ``if TYPE_CHECKING`` cost nothing and are left out at the top."""
    nodes = _executed_at_import(tree(path).body) if top_level else ast.walk(tree(path))
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{relative(path)}:{node.lineno}: relative import"
            yield str(node.module), node.lineno


def _executed_at_import(body: list[ast.stmt]) -> Iterator[ast.AST]:
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from _executed_at_import(statement.orelse)
            continue
        yield statement
        for name in ("body", "orelse", "finalbody"):
            yield from _executed_at_import(getattr(statement, name, []))
        for handler in getattr(statement, "handlers", []):
            yield from _executed_at_import(handler.body)


def room(module: str) -> str | None:
    parts = module.split(".")
    if parts[0] == "aiops_assets":
        return parts[1] if len(parts) > 1 else None
    return parts[0] if parts[0] in PACKAGES else None


def layer(name: str) -> int:
    found = [number for number, rooms in enumerate(LAYERS) if name in rooms]
    assert found, f"the room {name!r} has no layer yet: give it one in {Path(__file__).name}"
    return found[0]


def test_imports_between_rooms_go_one_way() -> None:
    wrong = []
    for path in modules():
        own = room(relative(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."))
        if own is None:
            continue
        for module, line in imports(path):
            other = room(module)
            if other is None or other == own or (own, other) in EXCEPTIONS:
                continue
            if own in WIRING:
                allowed = other in WIRING or layer(other) < layer("gateway")
                allowed = allowed and not (own == "jobs" and other in {"sensors", "definitions"})
                allowed = allowed and not (own == "sensors" and other == "definitions")
            else:
                allowed = other not in WIRING and layer(other) <= layer(own)
            if not allowed:
                wrong.append(f"{relative(path)}:{line}: {own} imports {module}")
    assert wrong == []


def test_dagster_is_imported_only_where_it_belongs() -> None:
    wrong = []
    for path in modules():
        place = relative(path)
        if path.name in DAGSTER_PLACES or place in DAGSTER_FILES or place.startswith(DAGSTER_FOLDERS):
            continue
        wrong += [f"{place}:{line}: {module}" for module, line in imports(path) if module.split(".")[0] == "dagster"]
    assert wrong == []


def test_nothing_heavy_is_imported_at_the_top_of_a_module() -> None:
    wrong = [
        f"{relative(path)}:{line}: {module}"
        for path in modules()
        for module, line in imports(path, top_level=True)
        if module.split(".")[0] in HEAVY
    ]
    assert wrong == []


def test_the_live_plane_names_no_heavy_module_even_inside_functions() -> None:
    rooms = {
        "formats",
        "landing",
        "lake",
        "telemetry",
        "live",
        "sources",
        "collectors",
        "gateway",
        "incidents",
        "operations",
    }
    wrong = [
        f"{relative(path)}:{line}: {module}"
        for path in modules()
        if room(relative(path).replace("/", ".")) in rooms
        for module, line in imports(path)
        if module.split(".")[0] in HEAVY
    ]
    assert wrong == []


@pytest.mark.parametrize("module", sorted(AT_HOME))
def test_costly_modules_stay_in_their_room(module: str) -> None:
    wrong = [
        f"{relative(path)}:{line}"
        for path in modules()
        if room(relative(path).replace("/", ".")) not in AT_HOME[module]
        for name, line in imports(path)
        if name.split(".")[0] == module
    ]
    assert wrong == []


def test_only_settings_read_the_environment() -> None:
    wrong = []
    for path in modules():
        if relative(path) == "aiops_assets/settings.py":
            continue
        for node in ast.walk(tree(path)):
            name = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if name in {"os.environ", "os.environb", "os.getenv", "os.getenvb"}:
                wrong.append(f"{relative(path)}:{node.lineno}: {name}")  # type: ignore[attr-defined]
        wrong += [
            f"{relative(path)}:{node.lineno}"
            for node in ast.walk(tree(path))
            if isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and {alias.name for alias in node.names} & {"environ", "getenv"}
        ]
    assert wrong == []


def test_nothing_unpickles_evaluates_text_or_starts_a_shell() -> None:
    wrong = []
    for path in modules():
        wrong += [
            f"{relative(path)}:{line}: {module}"
            for module, line in imports(path)
            if module.split(".")[0] in {"pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
        ]
        for node in ast.walk(tree(path)):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            shell = any(
                keyword.arg == "shell"
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
                for keyword in node.keywords
            )
            pickled = any(
                keyword.arg == "allow_pickle"
                and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
                for keyword in node.keywords
            )
            unsafe = name == "yaml.load" and "Safe" not in ast.unparse(node)
            if name in {"eval", "exec", "os.system", "os.popen", "yaml.unsafe_load"} or shell or pickled or unsafe:
                wrong.append(f"{relative(path)}:{node.lineno}: {name}")
    assert wrong == []


def test_every_module_says_what_it_is_for() -> None:
    bare = [relative(path) for path in modules() if not ast.get_docstring(tree(path))]
    assert bare == []


def test_every_package_says_what_belongs_there_and_what_does_not() -> None:
    silent = []
    for path in modules():
        text = " ".join((ast.get_docstring(tree(path)) or "").split())
        room_itself = path.name == "__init__.py" and path.parent.parent == ROOT / "aiops_assets"
        if room_itself and ("belongs here" not in text or "does not" not in text):
            silent.append(relative(path))
    assert silent == []


@pytest.mark.parametrize("package", ["jobs", "sensors"])
def test_top_level_packages_are_ours(package: str) -> None:
    origin = importlib.import_module(package).__file__
    assert origin is not None
    assert Path(origin).is_relative_to(ROOT)


def test_the_dbt_folder_is_no_python_package() -> None:
    assert not (ROOT / "dbt" / "__init__.py").exists()
    spec = importlib.util.find_spec("dbt")
    folders = list(spec.submodule_search_locations or []) if spec else []
    assert str(ROOT / "dbt") not in folders[:1], "the project's dbt folder hides the dbt package"


PROBE = """
import sys
from aiops_assets.definitions.{location} import build_definitions
build_definitions().get_repository_def().load_all_definitions()
print(*sorted({{name.split(".")[0] for name in sys.modules}}))
"""
#: what the learning location needs to draw its graph: dbt's models are assets
ASSEMBLY = frozenset({"dagster_dbt", "dbt"})
#: loaded by a session, not by looking at the graph
NOT_ON_LOAD = frozenset({"pysnmp", "duckdb", "pyarrow", "uvicorn", "starlette", "typer", "httpx", "sqlalchemy_utils"})


def loaded_by(location: str, tmp_path: Path) -> set[str]:
    environment = {"PATH": os.environ["PATH"], "AIOPS_HOME": str(tmp_path / "home")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(location=location)],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_the_live_location_loads_nothing_heavy(tmp_path: Path) -> None:
    assert loaded_by("live", tmp_path) & (HEAVY | NOT_ON_LOAD) == set()


def test_the_learning_location_loads_nothing_heavy_before_it_is_needed(tmp_path: Path) -> None:
    assert loaded_by("learning", tmp_path) & HEAVY - ASSEMBLY == set()


def test_the_live_session_loads_nothing_heavy(tmp_path: Path) -> None:
    code = "import sys, aiops_assets.live.session; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) & HEAVY == set()
