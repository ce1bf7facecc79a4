// Starts and ends gateways for the tests in the browser, each by its own process id. Knows nothing
// of browsers.

import { spawn, spawnSync } from "node:child_process";
import { createServer } from "node:net";

const BINARY = process.env.GATEWAY;
const running = new Set();

export class Gateway {
  /** A gateway that takes requests; `arguments_` as on the command line. */
  static async start(...arguments_) {
    const process_ = spawn(BINARY, ["--log", "warn", ...arguments_], { stdio: ["ignore", "pipe", "pipe"] });
    const gateway = new Gateway();
    gateway.process = process_;
    gateway.ended = new Promise((resolve) => process_.once("exit", resolve));
    running.add(gateway);
    let told = "";
    let log = "";
    process_.stderr.on("data", (piece) => (log += piece));
    gateway.url = await new Promise((resolve, reject) => {
      process_.stdout.on("data", (piece) => {
        told += piece;
        const address = told.match(/ on (http:\/\/\S+)/);
        if (address) resolve(address[1]);
      });
      process_.once("error", reject);
      process_.once("exit", (code) => reject(new Error(`the gateway ended with ${code}:\n${log}`)));
    });
    return gateway;
  }

  async end() {
    running.delete(this);
    this.process.kill("SIGTERM");
    await this.ended;
  }
}

export async function endAll() {
  await Promise.all([...running].map((gateway) => gateway.end()));
}

/**
 * A port that nobody listens on, to start on twice. It is not one that the system gives to whoever
 * asks for any (from 32768 up): between the two starts it would be anybody's.
 */
export async function freePort() {
  for (;;) {
    const port = 20_000 + Math.floor(Math.random() * 12_000);
    const server = createServer();
    const isFree = await new Promise((resolve) => {
      server.once("error", () => resolve(false));
      server.listen(port, "127.0.0.1", () => server.close(() => resolve(true)));
    });
    if (isFree) return port;
  }
}

/** A new access token, and its line for the file. */
export function newToken(scope) {
  const { stdout } = spawnSync(BINARY, ["token", "--name", "console", "--scope", scope], { encoding: "utf8" });
  return { token: stdout.match(/dkvs_\S+/)[0], line: stdout.match(/^console .*$/m)[0] };
}
