// Logs in at the real Auth.js v5 and NextAuth v4 with the credentials provider, and prints the Cookie headers that a
// browser would then send. Run in a folder with both packages in node_modules. On standard input comes a JSON list of
//
//     {"version": 4 or 5, "url": "https://…", "secret": "…", "maxAge": 3600, "token": {more claims}}
//
// and on standard output goes one of texts, in the same order.

import { createHash } from "node:crypto";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";
import { resolve } from "node:path";

const require = createRequire(resolve("package.json"));
const load = (path) => import(pathToFileURL(resolve("node_modules", path)));

const { Auth, skipCSRFCheck } = await load("@auth/core/index.js");
const { default: Credentials5 } = await load("@auth/core/providers/credentials.js");
const { AuthHandler } = require(resolve("node_modules/next-auth/core/index.js"));
const { default: Credentials4 } = require(resolve("node_modules/next-auth/providers/credentials.js"));

const user = { id: "user-7", name: "Demo Trader", email: "demo@example.com" };
const callbacks = (order) => ({ jwt: ({ token }) => ({ ...token, ...order.token }) });

async function v5(order) {
  const request = new Request(`${order.url}/auth/callback/credentials`, {
    method: "POST",
    headers: { "Content-Type": "application/x-www-form-urlencoded" },
    body: new URLSearchParams({ password: "x" }),
  });
  const response = await Auth(request, {
    basePath: "/auth",
    trustHost: true,
    secret: order.secret,
    skipCSRFCheck,
    session: { strategy: "jwt", maxAge: order.maxAge },
    providers: [Credentials5({ credentials: { password: {} }, authorize: () => user })],
    callbacks: callbacks(order),
    logger: { error: console.error, warn: () => {}, debug: () => {} },
  });
  return response.headers.getSetCookie().map((header) => header.split(";")[0]);
}

async function v4(order) {
  const csrf = "0".repeat(64);
  const hash = createHash("sha256").update(`${csrf}${order.secret}`).digest("hex");
  const secure = order.url.startsWith("https:");
  const response = await AuthHandler({
    req: {
      origin: order.url,
      method: "POST",
      action: "callback",
      providerId: "credentials",
      body: { csrfToken: csrf, password: "x" },
      query: {},
      headers: {},
      cookies: { [`${secure ? "__Host-" : ""}next-auth.csrf-token`]: `${csrf}|${hash}` },
    },
    options: {
      secret: order.secret,
      useSecureCookies: secure,
      session: { strategy: "jwt", maxAge: order.maxAge },
      jwt: { maxAge: order.maxAge }, // v4 gives a new token 30 days, whatever the session has
      providers: [Credentials4({ credentials: { password: {} }, authorize: () => user })],
      callbacks: callbacks(order),
      logger: { error: console.error, warn: () => {}, debug: () => {} },
    },
  });
  return response.cookies.map(({ name, value }) => `${name}=${value}`);
}

let input = "";
for await (const piece of process.stdin) input += piece;
const minted = [];
for (const order of JSON.parse(input)) {
  const cookies = await (order.version === 5 ? v5(order) : v4(order));
  minted.push(cookies.join("; "));
}
process.stdout.write(JSON.stringify(minted));
