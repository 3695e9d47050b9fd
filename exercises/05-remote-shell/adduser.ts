/** Writes a user with a scrypt hash of the password to the users file, or takes one out. */
import { flag, optional, setting, text } from "../../shared/config.ts";
import { Failure, UsageError } from "../../shared/errors.ts";
import { program } from "../../shared/program.ts";
import { askPassword, passwordFrom } from "./password.ts";
import { atHome, readIfThere, writePrivately } from "./private-files.ts";
import { USER_NAME } from "./protocol.ts";
import { parseUsers, userLine } from "./users.ts";

await program({
  summary: "Adds a user to the remote shell's users file, or changes the password.",
  example: "--users /tmp/users --user ana",
  settings: {
    users: setting(text, "file of users; made where there is none", atHome("shell-users")),
    user: setting(text, "name of the user"),
    passwordFile: optional(text, "file whose first line is the password (default: it is asked for)"),
    remove: flag("take the user out instead"),
  },
  async run({ users: path, user, passwordFile, remove }, { log }) {
    if (!USER_NAME.test(user))
      throw new UsageError(
        `--user ${JSON.stringify(user)} is no name: at most 32 of A-Z a-z 0-9 _ . -, no digit first`,
      );
    const content = readIfThere(path) ?? "";
    const isKnown = parseUsers(content).has(user);
    const others = content.split("\n").filter((line) => line !== "" && !line.startsWith(`${user}:`));
    if (remove) {
      if (!isKnown) throw new Failure(`there is no ${user} in ${path}`);
      writePrivately(path, others.map((line) => `${line}\n`).join(""));
      return log(`${user} is no longer in ${path}`);
    }
    const password = passwordFile === undefined ? await newPassword(user) : passwordFrom(passwordFile, log);
    const lines = [...others, await userLine(user, password)];
    writePrivately(path, lines.map((line) => `${line}\n`).join(""));
    log(`${isKnown ? "changed the password of" : "added"} ${user} in ${path}`);
  },
});

async function newPassword(user: string): Promise<string> {
  const password = await askPassword(`password for ${user}: `);
  if ((await askPassword("once more: ")) !== password)
    throw new Failure("the two passwords are not the same");
  return password;
}
