/** Long work on the directory gives way to the network and the clock now and then: who says nothing for a second is taken for dead. */
import { setImmediate as nextTurn } from "node:timers/promises";

/** So long others are kept from their turn. */
const TURN_MS = 10;

/** To be awaited between the steps of a work. */
export function turns(): () => Promise<void> | undefined {
  let sinceMs = performance.now();
  const give = async () => {
    await nextTurn();
    sinceMs = performance.now();
  };
  return () => (performance.now() - sinceMs < TURN_MS ? undefined : give());
}
