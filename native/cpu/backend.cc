#include "cpu/backend.h"

#include <cstring>
#include <optional>

#include "core/host_memory.h"

namespace revnet {
namespace {

std::vector<const CpuKernels*> usableKernels() {
  std::vector<const CpuKernels*> usable;
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    usable.push_back(&kAvx512Kernels);
  if (avx2) usable.push_back(&kAvx2Kernels);
#endif
#if defined(__aarch64__)
  usable.push_back(&kNeonKernels);
#else
  usable.push_back(&kPortableKernels);
#endif
  return usable;
}

const CpuKernels& chooseKernels(const std::string& isa) {
  const auto usable = usableKernels();
  if (isa == "auto") return *usable.front();
  std::string names = "auto";
  for (const CpuKernels* kernels : usable) {
    if (isa == kernels->name) return *kernels;
    names += std::string(", ") + kernels->name;
  }
  throw Error("ERR_DEVICE_UNAVAILABLE", "isa: this processor cannot run '" + isa + "'; expected one of " + names);
}

class CpuReplay final : public Replay {
 public:
  CpuReplay(const CpuKernels& kernels, ThreadPool& pool, const std::vector<Op>& ops, const Memory& memory)
      : kernels_(kernels), pool_(pool), ops_(ops), memory_(memory) {}
  void run(const std::atomic<bool>& cancelled) override {
    for (const Op& op : ops_) {
      if (cancelled) return;
      kernels_.run(op, memory_, pool_);
    }
  }

 private:
  const CpuKernels& kernels_;
  ThreadPool& pool_;
  const std::vector<Op>& ops_;
  const Memory& memory_;
};

class CpuBackend final : public Backend {
 public:
  CpuBackend(int threads, const std::string& isa) : kernels_(chooseKernels(isa)), threads_(threads) {}

  std::string description() const override {
    return std::string("CPU, ") + kernels_.name + ", " + std::to_string(threads_) + (threads_ == 1 ? " thread" : " threads");
  }
  size_t elementBytes(ElementType type) const override { return type == ElementType::Byte ? 1 : 4; }
  int fractionBits() const override { return 22; }

  void* allocate(size_t bytes) override { return allocateHost(bytes); }
  void* allocateZeros(size_t bytes) override { return allocateHostZeros(bytes); }
  void settle(void* memory) noexcept override { settleHost(memory); }
  void release(void* memory) noexcept override { releaseHost(memory); }
  void upload(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void fill(void* to, std::byte value, size_t bytes) override { std::memset(to, std::to_integer<int>(value), bytes); }

  size_t workspaceBytes(const Op& op) const override { return kernels_.workspaceBytes(op, threads_); }
  std::unique_ptr<Replay> record(const std::vector<Op>& ops, const Memory& memory) override {
    if (!pool_) pool_.emplace(threads_);
    return std::make_unique<CpuReplay>(kernels_, *pool_, ops, memory);
  }

 private:
  const CpuKernels& kernels_;
  const int threads_;
  std::optional<ThreadPool> pool_;  // started by the first program that is to run: planning needs none
};

}  // namespace

std::vector<std::string> cpuInstructionSets() {
  std::vector<std::string> names;
  for (const CpuKernels* kernels : usableKernels()) names.emplace_back(kernels->name);
  return names;
}

std::unique_ptr<Backend> makeCpuBackend(int threads, const std::string& isa) {
  if (threads < 1 || threads > 1024) throw invalid("threads: expected 1 to 1024, got " + std::to_string(threads));
  return std::make_unique<CpuBackend>(threads, isa);
}

}  // namespace revnet
