// What a program does with dkvs, by the client that openapi-generator makes for TypeScript.

import {
    BinaryKey,
    Configuration,
    Problem,
    ProblemFromJSON,
    ProblemTypeEnum,
    ResponseError,
    ValuesApi,
    WriteResult,
} from "./dkvs-client/index.js";

const ATTEMPTS = 3;

async function main(address: string) {
    const values = new ValuesApi(new Configuration({ basePath: address }));
    await putAndGet(values);
    await putMoreAndList(values);
    await deleteOne(values);
    await doABatch(values);
}

async function putAndGet(values: ValuesApi) {
    const written = await put(values, "fruit/apple", "red", "all");
    console.log(`put fruit/apple: ${written.outcome} by ${written.quorum.confirmed} servers`);

    const read = await values.getValue({ key: "fruit/apple", wait: "all" });
    console.log(`get fruit/apple: ${read.value}, ${read.contentType}, ${read.consistency}`);
    // `server` and `latencyUs` say which server it was, and how long it took.
    for (const replica of read.replicas) {
        console.log(`  a server says: ${replica.status}`);
    }
}

async function putMoreAndList(values: ValuesApi) {
    const fruits = { pear: "green", plum: "blue", fig: "violet", lime: "green" };
    for (const [key, value] of Object.entries(fruits)) {
        await put(values, `fruit/${key}`, value);
    }

    // A key is text, or a BinaryKey if its bytes are not UTF-8.
    const keys: (string | BinaryKey)[] = [];
    let pages = 0;
    let cursor: string | undefined;
    do {
        const page = await values.listKeys({ prefix: "fruit/", limit: 2, cursor });
        keys.push(...page.keys);
        pages += 1;
        cursor = page.cursor ?? undefined;
    } while (cursor !== undefined);
    const number = pages > 1 ? "several pages" : "one page";
    console.log(`list fruit/: ${keys.join(", ")}; ${number}`);
}

async function deleteOne(values: ValuesApi) {
    const deleted = await values.deleteValue({ key: "fruit/apple" });
    console.log(`delete fruit/apple: ${deleted.outcome}`);
    try {
        await values.getValue({ key: "fruit/apple" });
    } catch (error) {
        const { problem } = await problemOf(error);
        if (problem.type !== ProblemTypeEnum.KeyNotFound) {
            throw error;
        }
        const why = problem.deleted ? "deleted" : "never put";
        console.log(`get fruit/apple: ${problem.type}, ${why}`);
    }
}

async function doABatch(values: ValuesApi) {
    const operations = [
        { op: "get", key: "fruit/pear" },
        { op: "get", key: "fruit/apple" },
        { op: "put", key: "fruit/lime", value: "yellow", contentType: "text/plain" },
        { op: "delete", key: "fruit/plum" },
    ] as const;
    const { results } = await values.runBatch({ batch: { operations: [...operations] } });
    results.forEach((result, place) => {
        const { op, key } = operations[place]!;
        // Each has a fate of its own: one of them is there.
        const cameTo = result.problem?.type ?? result.read?.value ?? result.write?.outcome;
        console.log(`batch ${op} ${key}: ${result.status} ${cameTo}`);
    });
}

/** Stores text, and tries again, but not forever, when too few servers can be reached. */
async function put(
    values: ValuesApi,
    key: string,
    value: string,
    wait: "quorum" | "all" = "quorum",
): Promise<WriteResult> {
    let tag: string | undefined;
    for (let attempt = 1; ; attempt += 1) {
        try {
            return await values.putValue(
                { key, body: new Blob([value]), wait, tag },
                { headers: { "Content-Type": "text/plain" } },
            );
        } catch (error) {
            const { problem, response } = await problemOf(error);
            console.error(`put ${key}: ${problem.type}, attempt ${attempt}`);
            const unreachable = problem.type === ProblemTypeEnum.QuorumUnreachable;
            if (!unreachable || attempt === ATTEMPTS) {
                throw error;
            }
            // With its tag, the same write is sent again, and not another one.
            tag = problem.tag ?? undefined;
            const seconds = Number(response.headers.get("Retry-After"));
            await new Promise((resolve) => setTimeout(resolve, 1000 * seconds));
        }
    }
}

/** What the gateway says of a failure. Without that it is not the gateway that answered. */
async function problemOf(error: unknown): Promise<{ problem: Problem; response: Response }> {
    if (
        !(error instanceof ResponseError) ||
        error.response.headers.get("Content-Type") !== "application/problem+json"
    ) {
        throw error;
    }
    // Of a copy, as a body can be read only once.
    const problem = ProblemFromJSON(await error.response.clone().json());
    return { problem, response: error.response };
}

main(process.argv[2] ?? "http://127.0.0.1:8080").catch(async (error) => {
    const { problem } = await problemOf(error);
    console.error(`gave up: ${problem.status} ${problem.type}`);
    process.exitCode = 1;
});
