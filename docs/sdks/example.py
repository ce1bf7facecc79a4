"""What a program does with dkvs, by the client that openapi-generator makes for Python."""

import sys
import time

from dkvs_client import (
    ApiClient,
    ApiException,
    Batch,
    BatchOperation,
    Configuration,
    Problem,
    ValuesApi,
)

KEY_NOT_FOUND = "urn:dkvs:problem:key-not-found"
QUORUM_UNREACHABLE = "urn:dkvs:problem:quorum-unreachable"
ATTEMPTS = 3


def main(address):
    # Without retries=False, urllib3 repeats what was answered 503 by itself.
    with ApiClient(Configuration(host=address, retries=False)) as client:
        values = ValuesApi(client)
        put_and_get(values)
        put_more_and_list(values)
        delete(values)
        do_a_batch(values)


def put_and_get(values):
    written = put(values, "fruit/apple", "red", wait="all")
    print(f"put fruit/apple: {written.outcome} by {written.quorum.confirmed} servers")

    read = values.get_value("fruit/apple", wait="all")
    print(f"get fruit/apple: {read.value}, {read.content_type}, {read.consistency.value}")
    # `server` and `latency_us` say which server it was, and how long it took.
    for replica in read.replicas:
        print(f"  a server says: {replica.status}")


def put_more_and_list(values):
    for key, value in [("pear", "green"), ("plum", "blue"), ("fig", "violet"), ("lime", "green")]:
        put(values, f"fruit/{key}", value)

    keys, pages, cursor = [], 0, None
    while cursor is not None or pages == 0:
        page = values.list_keys(prefix="fruit/", limit=2, cursor=cursor)
        # A key is text, or a BinaryKey if its bytes are not UTF-8.
        keys += [key.actual_instance for key in page.keys]
        pages, cursor = pages + 1, page.cursor
    print(f"list fruit/: {', '.join(keys)}; {'several pages' if pages > 1 else 'one page'}")


def delete(values):
    deleted = values.delete_value("fruit/apple")
    print(f"delete fruit/apple: {deleted.outcome}")
    try:
        values.get_value("fruit/apple")
    except ApiException as error:
        problem = problem_of(error)
        if problem.type != KEY_NOT_FOUND:
            raise
        print(f"get fruit/apple: {problem.type}, {'deleted' if problem.deleted else 'never put'}")


def do_a_batch(values):
    operations = [
        BatchOperation(op="get", key="fruit/pear"),
        BatchOperation(op="get", key="fruit/apple"),
        BatchOperation(op="put", key="fruit/lime", value="yellow", content_type="text/plain"),
        BatchOperation(op="delete", key="fruit/plum"),
    ]
    results = values.run_batch(Batch(operations=operations)).results
    for operation, result in zip(operations, results):
        # Each has a fate of its own: one of them is there.
        if result.problem:
            came_to = result.problem.type
        elif result.read:
            came_to = result.read.value
        else:
            came_to = result.write.outcome
        print(f"batch {operation.op} {operation.key}: {result.status} {came_to}")


def put(values, key, value, wait="quorum"):
    """Stores text, and tries again, but not forever, when too few servers can be reached."""
    tag = None
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return values.put_value(
                key, value.encode(), wait=wait, tag=tag, _content_type="text/plain"
            )
        except ApiException as error:
            problem = problem_of(error)
            print(f"put {key}: {problem.type}, attempt {attempt}", file=sys.stderr)
            if problem.type != QUORUM_UNREACHABLE or attempt == ATTEMPTS:
                raise
            # With its tag, the same write is sent again, and not another one.
            tag = problem.tag
            time.sleep(int(error.headers["Retry-After"]))


def problem_of(error):
    """What the gateway says of a failure. Without that it is not the gateway that answered."""
    if not isinstance(error.data, Problem):
        raise error
    return error.data


if __name__ == "__main__":
    try:
        main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8080")
    except ApiException as error:
        problem = problem_of(error)
        sys.exit(f"gave up: {problem.status} {problem.type}")
