/** Threads by default: cores, and what the files of a made-up machine leave of them. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { expect } from "chai";
import { processorCount } from "../../lib/processors.js";

describe("the number of processors", () => {
  let root: string;
  beforeEach(async () => {
    root = await mkdtemp(path.join(tmpdir(), "revnet-processors-"));
  });
  afterEach(() => rm(root, { recursive: true }));

  async function file(name: string, content: string): Promise<void> {
    await mkdir(path.join(root, path.dirname(name)), { recursive: true });
    await writeFile(path.join(root, name), `${content}\n`);
  }
  const count = (cores = 32) => processorCount(root, cores);

  it("is that of the cores where nothing limits them", async () => {
    expect(count()).to.equal(32);
    await file("sys/fs/cgroup/cpu.max", "max 100000");
    await file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1");
    await file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
    expect(count()).to.equal(32);
    expect(processorCount()).to.be.greaterThan(0);
  });

  it("is a quota of cgroup version 2, of the group or of one above it", async () => {
    await file("sys/fs/cgroup/cpu.max", "250000 100000");
    expect(count()).to.equal(3);
    expect(count(2)).to.equal(2);
    await file("proc/self/cgroup", "0::/a/b");
    await file("sys/fs/cgroup/a/b/cpu.max", "max 100000");
    await file("sys/fs/cgroup/a/cpu.max", "50000 100000");
    expect(count()).to.equal(1);
  });

  it("is a quota of cgroup version 1, under either name of its mount", async () => {
    await file("proc/self/cgroup", "5:memory:/docker/1\n4:cpu,cpuacct:/docker/1\n1:name=systemd:/docker/1");
    await file("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_quota_us", "400000");
    await file("sys/fs/cgroup/cpu,cpuacct/docker/1/cpu.cfs_period_us", "100000");
    expect(count()).to.equal(4);
    await file("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000");
    await file("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000");
    expect(count()).to.equal(1);
  });
});
