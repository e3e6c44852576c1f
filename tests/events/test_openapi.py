"""Our own OpenAPI, tried out: no request it allows, or nearly allows, is a server error."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.generation import GenerationMode

from events.models import Event, Scope
from tests.events.serving import serving
from tests.factories import make_api_key

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.xdist_group("clients")]

EXAMPLES = 30
"""Of each operation; a server error turns up in the first few or is rare."""


@pytest.fixture(scope="module")
def server(django_db_setup: None) -> Iterator[str]:
    with serving() as url:
        yield url


def test_no_request_is_a_server_error(server: str) -> None:
    _, token = make_api_key(rate_limit=0, scopes=list(Scope.values))
    accept = {"Accept": "application/json"}
    document = httpx.get(f"{server}/api/schema", headers=accept, timeout=60).json()
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=server)
    schema.config.generation.modes = list(GenerationMode)
    tried: Counter[str] = Counter()
    for result in schema.get_all_operations():
        _try(result.ok(), {"Authorization": f"Bearer {token}"}, tried)
    ours = ("POST /api/v1/events", "POST /cloudevents", "POST /segment/v1/{path}")
    assert all(tried[label] >= EXAMPLES for label in ours)
    assert Event.objects.exists()  # some of it was right


def _try(operation: Any, headers: dict[str, str], tried: Counter[str]) -> None:
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def attempt(case: Any) -> None:
        tried[operation.label] += 1
        response = case.call(headers=headers, timeout=60)
        assert response.status_code < 500, response.text[:500]

    for mode in GenerationMode:
        strategy = operation.as_strategy(generation_mode=mode)
        given(strategy)(attempt)()
