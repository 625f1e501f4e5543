"""Backfills handed to a running Dagster: submitted and followed through the webserver's GraphQL.

What belongs here: the requests, their limits and what their answers mean. What does not: what a backfill does
(``backfill``) and which assets there are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

import httpx

TIMEOUT_SECONDS = 30.0
POLL_SECONDS = 2.0
#: the webserver may restart while a backfill runs
_ATTEMPTS = 5
_LAUNCH = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on Error { message } } }"""
_STATUS = """query($id: String!) { partitionBackfillOrError(backfillId: $id) { __typename ... on Error { message }
  ... on PartitionBackfill { status error { message } assetBackfillData { assetBackfillStatuses { __typename
    ... on AssetPartitionsStatusCounts { assetKey { path } numPartitionsTargeted numPartitionsMaterialized
      numPartitionsFailed numPartitionsInProgress } } } } } }"""
_GROUP = """query { assetNodes { assetKey { path } groupName isPartitioned isExecutable } }"""
#: statuses after which nothing more happens
_OVER = frozenset({"COMPLETED", "COMPLETED_SUCCESS", "COMPLETED_FAILED", "FAILED", "CANCELED"})
_GOOD = frozenset({"COMPLETED", "COMPLETED_SUCCESS"})


class DagsterProblem(Exception):
    """The webserver does not answer, or refuses; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Standing:
    """How far a backfill has come. ``materialised`` and ``failed`` count asset partitions, of ``targeted`` ones."""

    backfill_id: str
    status: str
    targeted: int
    materialised: int
    failed: int
    by_asset: dict[str, tuple[int, int, int]]
    error: str = ""

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self.status in _OVER

    @property
    def good(self) -> bool:
        """Whether it is over and everything was materialised."""
        return self.status in _GOOD and not self.failed


class Webserver:
    """The GraphQL of a Dagster webserver."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._http = httpx.Client(timeout=TIMEOUT_SECONDS, trust_env=False)

    def __enter__(self) -> Webserver:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._http.close()

    def submit(self, assets: Sequence[str], partitions: Sequence[str], title: str) -> str:
        """Launch a backfill of assets that have the same partitions; its id.

        Raises:
            DagsterProblem: it was refused, or nobody answers.
        """
        params = {
            "assetSelection": [{"path": name.split("/")} for name in assets],
            "partitionNames": list(partitions),
            "title": title,
            "tags": [{"key": "aiops/from", "value": "command line"}],
        }
        # Asked once: a repetition after a lost answer would launch a second one.
        answer = self._ask(_LAUNCH, {"params": params}, attempts=1)["launchPartitionBackfill"]
        if answer["__typename"] != "LaunchBackfillSuccess":
            raise DagsterProblem(f"Dagster refuses the backfill: {answer.get('message', answer['__typename'])}")
        return str(answer["backfillId"])

    def standing(self, backfill_id: str) -> Standing:
        """How far a backfill has come.

        Raises:
            DagsterProblem: there is no such backfill, or nobody answers.
        """
        answer = self._ask(_STATUS, {"id": backfill_id})["partitionBackfillOrError"]
        if answer["__typename"] != "PartitionBackfill":
            raise DagsterProblem(f"backfill {backfill_id}: {answer.get('message', answer['__typename'])}")
        data = answer["assetBackfillData"] or {"assetBackfillStatuses": []}
        counts = {
            "/".join(entry["assetKey"]["path"]): (
                entry["numPartitionsTargeted"],
                entry["numPartitionsMaterialized"],
                entry["numPartitionsFailed"],
            )
            for entry in data["assetBackfillStatuses"]
            if entry["__typename"] == "AssetPartitionsStatusCounts"
        }
        targeted, materialised, failed = (sum(entry[place] for entry in counts.values()) for place in range(3))
        error = (answer["error"] or {}).get("message", "")
        return Standing(backfill_id, answer["status"], targeted, materialised, failed, counts, error)

    def follow(self, backfill_id: str, tell: Callable[[Standing], None]) -> Standing:
        """Wait until a backfill is over, telling its standing.

        Raises:
            DagsterProblem: nobody answers any more.
        """
        while True:
            standing = self.standing(backfill_id)
            tell(standing)
            if standing.over:
                return standing
            time.sleep(POLL_SECONDS)

    def partitioned_assets(self, group: str) -> list[str]:
        """Names of the assets of a group that have partitions and can be executed.

        Raises:
            DagsterProblem: nobody answers.
        """
        nodes = self._ask(_GROUP, {})["assetNodes"]
        mine = [n for n in nodes if n["groupName"] == group and n["isPartitioned"] and n["isExecutable"]]
        return sorted("/".join(node["assetKey"]["path"]) for node in mine)

    def _ask(self, query: str, variables: dict[str, Any], attempts: int = _ATTEMPTS) -> dict[str, Any]:
        for attempt in range(attempts):
            try:
                response = self._http.post(f"{self.url}/graphql", json={"query": query, "variables": variables})
                response.raise_for_status()
                break
            except httpx.HTTPError as error:
                if attempt + 1 == attempts:
                    raise DagsterProblem(
                        f"Dagster does not answer at {self.url} ({error}); is `aiops up` running? Without "
                        "--in-dagster the backfill runs in this process"
                    ) from error
                time.sleep(min(2.0**attempt, 10.0))
        document = response.json()
        if document.get("errors"):
            raise DagsterProblem(f"Dagster at {self.url}: {document['errors'][0].get('message', document['errors'])}")
        return dict(document["data"])
