/** The texts of MODE (modern.ircdocs.horse): letters with signs, and parameters for some of them. Pure rules. */

/** Which letters a channel has: with a parameter always, when set, never. `o` is a member's, `b` a list. */
const WITH_PARAMETER = "obk";
const WITH_PARAMETER_WHEN_SET = "l";
const WITHOUT_PARAMETER = "int";
/** As RPL_ISUPPORT and RPL_MYINFO tell it. */
export const CHANMODES = `b,k,${WITH_PARAMETER_WHEN_SET},${WITHOUT_PARAMETER}`;
export const CHANNEL_MODES = [...(WITH_PARAMETER + WITH_PARAMETER_WHEN_SET + WITHOUT_PARAMETER)]
  .toSorted()
  .join("");
export const USER_MODES = "i";

export interface ModeChange {
  letter: string;
  set: boolean;
  parameter?: string | undefined;
}

/** The changes in their order, unknown letters among them, each with the parameter that it takes if there is one. */
export function parseModes(text: string, parameters: readonly string[]): ModeChange[] {
  const changes: ModeChange[] = [];
  let set = true;
  let next = 0;
  for (const letter of text) {
    if (letter === "+" || letter === "-") {
      set = letter === "+";
      continue;
    }
    const takesOne = WITH_PARAMETER.includes(letter) || (set && WITH_PARAMETER_WHEN_SET.includes(letter));
    changes.push({ letter, set, parameter: takesOne ? parameters[next++] : undefined });
  }
  return changes;
}

/** `["+o-k", "nick", "key"]`: what a line says of the changes. */
export function formatModes(changes: readonly ModeChange[]): string[] {
  let text = "";
  let sign: boolean | undefined;
  for (const { letter, set } of changes) {
    if (set !== sign) text += set ? "+" : "-";
    text += letter;
    sign = set;
  }
  return [text, ...changes.flatMap(({ parameter }) => parameter ?? [])];
}
