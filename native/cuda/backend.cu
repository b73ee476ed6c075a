// The CUDA backend: one stream for each network, its memory, and its programs as graphs: captured once, then replayed with one
// call a step. The kernels are in the files that run.h names.
#include <algorithm>
#include <optional>
#include <span>
#include <string>

#include "core/backend.h"
#include "cuda/context.h"
#include "cuda/devices.h"
#include "cuda/handles.h"
#include "cuda/prepare.cuh"
#include "cuda/run.h"
#include "cuda/staging.h"

namespace revnet {
namespace cuda {
namespace {

// What a backend holds on its device. Apart from the backend, since planning needs none of it: making it starts the driver.
struct Resources {
  Stream stream = makeStream();
  Event done = makeEvent();
  Staging staging{stream.get()};
  DeviceMemory<unsigned> counters;

  Resources() {
    void* memory = nullptr;
    check(cudaMalloc(&memory, kCounters * sizeof(unsigned)), "counters");
    counters.reset(static_cast<unsigned*>(memory));
    check(cudaMemsetAsync(memory, 0, kCounters * sizeof(unsigned), stream.get()), "counters");
  }

  // Waits for all that was enqueued.
  cudaError_t finish() const { return waitFor(stream.get(), done.get()); }
};

void useDevice(int device) { check(cudaSetDevice(device), "device"); }

class CudaReplay final : public Replay {
 public:
  CudaReplay(int device, const Resources& resources, ExecutableGraph graph, DeviceMemory<PrepareJob> jobs)
      : device_(device), resources_(resources), jobs_(std::move(jobs)), graph_(std::move(graph)) {}
  // A replay may end while it runs: when it is replaced, or its network is disposed of.
  ~CudaReplay() override {
    cudaSetDevice(device_);
    resources_.finish();
    graph_.reset();
    jobs_.reset();
  }

  void run(const std::atomic<bool>& cancelled) override {
    if (cancelled) return;
    useDevice(device_);
    check(cudaGraphLaunch(graph_.get(), resources_.stream.get()), "program");
  }

 private:
  int device_;
  const Resources& resources_;     // of the backend, which outlives its replays
  DeviceMemory<PrepareJob> jobs_;  // that the graph reads
  ExecutableGraph graph_;
};

// All that `enqueue` enqueues on the stream, as a graph. If it throws, the stream is as it was.
template <class Enqueue>
ExecutableGraph capture(cudaStream_t stream, const Enqueue& enqueue) {
  // Relaxed: the first launch of a kernel may load its code, which the stricter modes forbid.
  check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "capture");
  cudaGraph_t captured = nullptr;
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(stream, &captured);
    const Graph abandoned(captured);
    cudaGetLastError();  // what the end of a failed capture reports has been thrown already
    throw;
  }
  check(cudaStreamEndCapture(stream, &captured), "capture");
  const Graph graph(captured);
  cudaGraphExec_t executable = nullptr;
  check(cudaGraphInstantiate(&executable, graph.get(), 0), "graph");
  return ExecutableGraph(executable);
}

// Neighbouring ops that one launch can do: what the later one writes is no memory that the earlier one touches, and what it reads
// is none that the earlier one writes. By address: the plan gives a dead tensor's memory to the next one.
bool overlap(const Memory& memory, Operand a, Operand b, int64_t aElements, int64_t bElements) {
  const auto *const first = memory.at<const std::byte>(a), *const second = memory.at<const std::byte>(b);
  const auto end = [&](const std::byte* start, Operand operand, int64_t elements) {
    return start + elements * static_cast<int64_t>(memory.bytesOf(operand));
  };
  return first < end(second, b, bElements) && second < end(first, a, aElements);
}

constexpr size_t mostTogether(const UpdateRunningStatistics*) { return SIZE_MAX; }
bool together(const UpdateRunningStatistics& a, const UpdateRunningStatistics& b, const Memory& memory) {
  const int64_t m = 2 * int64_t{a.c}, n = 2 * int64_t{b.c};
  return !overlap(memory, a.running, b.running, m, n) && !overlap(memory, a.running, b.statistics, m, n) &&
         !overlap(memory, a.statistics, b.running, m, n);
}
bool streamsTogether(const Memory& memory, Operand x, Operand y, Operand otherX, Operand otherY, int64_t xElements,
                     int64_t yElements) {
  return !overlap(memory, y, otherY, yElements, yElements) && !overlap(memory, y, otherX, yElements, xElements) &&
         !overlap(memory, x, otherY, xElements, yElements);
}
constexpr size_t mostTogether(const ShortcutForward*) { return 2; }
bool together(const ShortcutForward& a, const ShortcutForward& b, const Memory& memory) {
  return a.shortcut == b.shortcut &&
         streamsTogether(memory, a.x, a.y, b.x, b.y, a.shortcut.extent.elements(), a.shortcut.outputElements());
}
constexpr size_t mostTogether(const ShortcutBackward*) { return 2; }
bool together(const ShortcutBackward& a, const ShortcutBackward& b, const Memory& memory) {
  return a.shortcut == b.shortcut &&
         streamsTogether(memory, a.dy, a.dx, b.dy, b.dx, a.shortcut.outputElements(), a.shortcut.extent.elements());
}

template <class Record>
concept Joins = requires(const Record* record) {
  mostTogether(record);
};

// `table`: prepared.jobs() in device memory.
void enqueue(const std::vector<Op>& ops, Context context, const PrepareJob* table) {
  const PreparedProgram& prepared = context.memory.program;
  auto next = prepared.launches().begin();
  for (size_t i = 0; i < ops.size();) {
    context.weightsAreReady = next == prepared.launches().end() || next->op != i;
    if (!context.weightsAreReady) {
      prepare(context.stream, prepared.jobs().data() + next->first, next->last - next->first, table + next->first);
      ++next;
    }
    std::visit(
        [&](const auto& op) {
          using Record = std::decay_t<decltype(op)>;
          if constexpr (Joins<Record>) {
            std::vector<const Record*> all{&op};
            for (++i; i < ops.size() && all.size() < mostTogether(&op); ++i) {
              const auto* another = std::get_if<Record>(&ops[i]);
              const auto fits = [&](const Record* before) { return together(*before, *another, context.memory); };
              if (!another || !std::all_of(all.begin(), all.end(), fits)) break;
              all.push_back(another);
            }
            cuda::run(std::span<const Record* const>(all), context);
          } else {
            cuda::run(op, context);
            ++i;
          }
        },
        ops[i]);
  }
}

class CudaBackend final : public Backend {
 public:
  CudaBackend(int device, Precision precision, Precision streamGradients, std::string description)
      : device_(device), precision_(precision), streamGradients_(streamGradients), description_(std::move(description)) {}
  ~CudaBackend() override {
    if (!resources_) return;
    cudaSetDevice(device_);
    resources_->finish();
    resources_.reset();
  }

  std::string description() const override { return description_; }
  size_t elementBytes(ElementType type) const override {
    switch (type) {
      case ElementType::Byte: return 1;
      case ElementType::Hidden: return hiddenBytes(precision_);
      case ElementType::Gradient: return streamGradients_ == Precision::Bfloat16 ? 2 : 4;
      case ElementType::Real:
      case ElementType::Fixed:
      case ElementType::Index: break;
    }
    return 4;
  }
  int fractionBits() const override { return 22; }

  // Straight from cudaMalloc: buffers are few, large, and live as long as the network, graphs hold their addresses, and what
  // is free stays a plain number. A pool would serve none of that.
  void* allocate(size_t bytes) override {
    use();
    void* memory = nullptr;
    const cudaError_t status = cudaMalloc(&memory, bytes);
    if (status == cudaErrorMemoryAllocation) throw outOfMemory(bytes);
    check(status, "memory");
    return memory;
  }
  void release(void* memory) noexcept override {
    cudaSetDevice(device_);
    if (resources_) resources_->finish();
    cudaFree(memory);
  }

  void upload(void* to, const void* from, size_t bytes) override { use().staging.upload(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { use().staging.download(to, from, bytes); }
  std::unique_ptr<Download> beginDownload(const void* from, size_t bytes) override {
    if (auto small = use().staging.beginDownload(from, bytes)) return small;
    return Backend::beginDownload(from, bytes);
  }
  bool runsAhead() const override { return true; }
  void fill(void* to, std::byte value, size_t bytes) override {
    check(cudaMemsetAsync(to, std::to_integer<int>(value), bytes, use().stream.get()), "fill");
  }

  void finish() override { check(use().finish(), "program"); }

  size_t workspaceBytes(const Op& op) const override {
    return std::visit(
        [&](const auto& record) -> size_t {
          if constexpr (NeedsWorkspace<std::decay_t<decltype(record)>>) return cuda::workspaceBytes(record, precision_);
          return 0;
        },
        op);
  }

  size_t preparedBytes(const std::vector<Op>& ops, const std::vector<ElementType>& types) const override {
    return PreparedProgram(ops, types, precision_).bytes();
  }

  std::unique_ptr<Replay> record(const std::vector<Op>& ops, const Memory& memory) override {
    Resources& resources = use();
    const cudaStream_t stream = resources.stream.get();
    PreparedProgram prepared(ops, memory.types, precision_);
    prepared.place(ops, memory);
    const ProgramMemory placed{memory, prepared};
    DeviceMemory<PrepareJob> jobs = upload(resources, prepared.jobs());
    const Context context{stream, placed, precision_, resources.counters.get()};
    ExecutableGraph graph = capture(stream, [&] { enqueue(ops, context, jobs.get()); });
    return std::make_unique<CudaReplay>(device_, resources, std::move(graph), std::move(jobs));
  }

 private:
  // Makes the device the calling thread's: a backend is used by the thread that adds buffers and by the one that runs steps.
  Resources& use() {
    useDevice(device_);
    if (!resources_) resources_.emplace();
    return *resources_;
  }

  // Null for none.
  static DeviceMemory<PrepareJob> upload(Resources& resources, const std::vector<PrepareJob>& jobs) {
    if (jobs.empty()) return nullptr;
    const size_t bytes = jobs.size() * sizeof(PrepareJob);
    void* memory = nullptr;
    check(cudaMalloc(&memory, bytes), "program");
    DeviceMemory<PrepareJob> table(static_cast<PrepareJob*>(memory));
    resources.staging.upload(memory, jobs.data(), bytes);
    return table;
  }

  static Error outOfMemory(size_t bytes) {
    cudaGetLastError();
    size_t free = 0, total = 0;
    check(cudaMemGetInfo(&free, &total), "memory");
    return Error("ERR_OUT_OF_MEMORY", "the GPU has not enough memory: " + readableBytes(bytes) + " were asked for, and " +
                                          readableBytes(free) + " of " + readableBytes(total) + " are free");
  }

  const int device_;
  const Precision precision_, streamGradients_;
  const std::string description_;
  std::optional<Resources> resources_;
};

}  // namespace
}  // namespace cuda

std::unique_ptr<Backend> makeCudaBackend(int device, Precision precision, Precision streamGradients) {
  const auto unavailable = [](const std::string& why) { return Error("ERR_DEVICE_UNAVAILABLE", why); };
  const auto [devices, absence] = cudaDevices();
  if (!absence.empty()) throw unavailable(absence);
  const auto number = static_cast<size_t>(device);
  if (number >= devices.size())
    throw unavailable("there is no device cuda:" + std::to_string(device) +
                      ": the last one is cuda:" + std::to_string(devices.size() - 1));
  const CudaDevice& chosen = devices[number];
  if (!chosen.absence.empty()) throw unavailable(chosen.absence);
  const std::string name = kPrecisionNames[static_cast<size_t>(precision)];
  // Before Ampere, tensor cores know neither format.
  if (precision != Precision::Float32 && chosen.capability < 80)
    throw unavailable(name + " needs compute capability 8.0, and this is " + chosen.description);
  return std::make_unique<cuda::CudaBackend>(device, precision, streamGradients, chosen.description + ", " + name);
}

}  // namespace revnet
