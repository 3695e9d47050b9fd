/** The least that is a proxy: a request in absolute form is passed on in origin form, CONNECT becomes a tunnel. For tests that look at what it is asked, or have it refuse. */
import type { Connection } from "../../shared/connection.ts";
import { encodeRequest, encodeResponse, Fields, type RequestHead, requestReader } from "../../shared/http.ts";
import { connect, serve, type TcpServer } from "../../shared/tcp.ts";
import { endpoint, httpUrl, requestTarget } from "./protocol.ts";

async function copy(from: Connection, to: Connection): Promise<void> {
  for (let chunk = await from.read(); chunk !== undefined; chunk = await from.read()) await to.write(chunk);
  to.end();
}

/** One request a connection; whatever the server sends until it closes is the response. */
async function session(client: Connection, asked: (head: RequestHead) => number): Promise<void> {
  const head = await requestReader(client).next();
  if (head === undefined) return;
  const status = asked(head);
  if (status !== 200)
    return client.write(
      encodeResponse({ status, reason: "No", fields: new Fields([["Content-Length", "0"]]) }),
    );
  const url = httpUrl(head.method === "CONNECT" ? `https://${head.target}` : head.target);
  await using server = await connect(endpoint(url));
  if (head.method === "CONNECT") {
    await client.write("HTTP/1.1 200 Connected\r\n\r\n");
    await Promise.all([copy(client, server), copy(server, client)]);
    return;
  }
  const fields = head.fields.replace(["Connection", "Proxy-Authorization"], [["Connection", "close"]]);
  await server.write(encodeRequest({ method: head.method, target: requestTarget(url, "origin"), fields }));
  await copy(server, client);
}

/** `asked` sees each request, and may refuse it by another status than 200. */
export function testProxy(
  port: number,
  signal: AbortSignal,
  asked: (head: RequestHead) => number = () => 200,
): Promise<TcpServer> {
  return serve({ host: "127.0.0.1", port, signal, log: () => {} }, (client) => session(client, asked));
}
