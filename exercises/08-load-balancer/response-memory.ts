/** The heads of a node's responses. */
import type { Connection } from "../../shared/connection.ts";
import { type ResponseHead, readResponse } from "../../shared/http.ts";

export class ResponseMemory {
  read(connection: Connection, headMs: number): Promise<ResponseHead | undefined> {
    return readResponse(connection, { headMs });
  }
}
