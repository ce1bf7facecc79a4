"""What schemathesis is to know of dkvs beyond openapi.yaml."""

import re

import requests
import schemathesis
from schemathesis import GenerationMode

# A request target past this is answered below HTTP, without a body or X-Request-Id; openapi.yaml
# says so, but no response object can.
TARGET_BYTES_MAX = 65534

# Why a request may be refused although it keeps to the schema. A schema knows no number of servers,
# compares no two parameters, and has no say in where a cursor or a tag comes from.
REASONS = {
    "n": r"the number of servers",
    "w": r"\bn\b|the number of servers",
    "r": r"\bn\b|the number of servers",
    "consistency": r"it cannot be linearizable",
    "cursor": r"begin the list anew",
    # A schema counts characters.
    "delimiter": r"it is longer than 64 bytes",
    "tag": r"the tag that a reply gave",
}


@schemathesis.hook
def filter_case(context, case):
    """Leaves out what never becomes a request to the gateway."""
    request = case.as_transport_kwargs(base_url="http://dkvs")
    url = requests.Request("GET", request["url"], params=request.get("params")).prepare().url
    return len(url) <= TARGET_BYTES_MAX


@schemathesis.hook
def before_call(context, case, kwargs):
    """Stores no value as application/json: the raw form of such a value would be taken for the JSON
    document that tells of it, whose type it then has."""
    if case.operation.definition.raw.get("operationId") == "putValue":
        case.media_type = "application/octet-stream"


@schemathesis.check
def refusals_have_a_reason_that_no_schema_can_say(ctx, response, case):
    """Data that keep to the schema are refused for one of REASONS, or not at all."""
    # The answer to HEAD has no body that would tell a reason.
    if response.status_code != 400 or case.method == "HEAD":
        return
    if case.meta is None or case.meta.generation.mode != GenerationMode.POSITIVE:
        return
    problem = response.json()
    if case.path == "/batch":
        # Which members an operation takes depends on what it does.
        assert problem["type"] == "urn:dkvs:problem:invalid-body", problem["detail"]
        return
    assert problem["type"] == "urn:dkvs:problem:invalid-parameter", problem["detail"]
    for wrong in problem["invalid_parameters"]:
        assert re.search(REASONS.get(wrong["name"], "(?!)"), wrong["reason"]), wrong


@schemathesis.check
def a_batch_refuses_what_is_wrong_in_it(ctx, response, case):
    """A batch that is against the schema and yet answered has an operation that was refused."""
    if case.operation.path != "/batch" or case.method != "POST" or response.status_code != 200:
        return
    if case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE:
        return
    # The gateway reads a batch whatever its Content-Type says.
    if response.request.headers.get("Content-Type") != "application/json":
        return
    results = response.json()["results"]
    assert any(result["status"] in (400, 413, 414) for result in results), results
