/** How many threads can run at once: cores, and what cgroups of both versions leave of them to a container or a batch job. */
import { availableParallelism } from "node:os";
import { readFileSync } from "./files/open.js";

const MAX_BYTES = 2 ** 16;

/**
 * Cores that this process may keep busy, at least 1: a quota of 1.5 cores is 2 threads.
 * @param root takes the place of "/" before names in /proc and /sys, for tests
 */
export function processorCount(root = "", cores = availableParallelism()): number {
  return Math.max(1, Math.min(cores, Math.ceil(quotaOf(root))));
}

/** Cores by the tightest quota of the process's groups and of those above them; Infinity where there is none. */
function quotaOf(root: string): number {
  // What is mounted is the process's own group, where /proc names none or, in a container, the host's.
  const groups: [mount: string, path: string][] = ["", "/cpu", "/cpu,cpuacct"].map((mount) => [mount, "/"]);
  for (const line of (read(`${root}/proc/self/cgroup`) ?? "").split("\n")) {
    const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? [];
    if (path === undefined) continue;
    if (controllers === "") groups.push(["", path]);
    else if (controllers!.split(",").includes("cpu")) groups.push(["/cpu", path], ["/cpu,cpuacct", path]);
  }
  let least = Number.POSITIVE_INFINITY;
  for (const [mount, path] of groups)
    for (let at = path.replace(/\/+$/, ""); ; at = at.slice(0, at.lastIndexOf("/"))) {
      least = Math.min(least, quotaIn(`${root}/sys/fs/cgroup${mount}${at}`));
      if (at === "") break;
    }
  return least;
}

function quotaIn(group: string): number {
  // Version 2: "max 100000", or the quota and its period in microseconds. Version 1: a file for each, and -1 for none.
  const [quota, period] = read(`${group}/cpu.max`)?.split(/\s+/) ?? [
    read(`${group}/cpu.cfs_quota_us`),
    read(`${group}/cpu.cfs_period_us`),
  ];
  const cores = Number(quota) / Number(period);
  return cores > 0 ? cores : Number.POSITIVE_INFINITY;
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, { limit: MAX_BYTES }).toString("utf8").trim();
  } catch {
    return undefined;
  }
}
