import { userInfo } from 'node:os';

/** Who gives the command. A container may run as a user whom no list of users names. */
export function userName(): string {
  try {
    return userInfo().username;
  } catch {
    return `user ${process.getuid?.() ?? 'unknown'}`;
  }
}
