// A session owns one device, the buffers of one network on it, and the programs recorded for them. Not thread-safe: one
// thread uses it at a time (native/binding gives each its own).
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "backend.h"
#include "host_array.h"
#include "initial_values.h"
#include "plan.h"

namespace revnet {

// Results that may be on their way.
class PendingResults {
 public:
  virtual ~PendingResults() = default;
  // Whether take() would return at once.
  virtual bool ready() = 0;
  // Once. Waits; throws what went wrong on the way.
  virtual std::vector<HostArray> take() = 0;
};
// Results that are there.
std::unique_ptr<PendingResults> readyResults(std::vector<HostArray> results);

struct MemoryReport {
  std::array<size_t, kCategories> categories{};  // bytes by Category
  size_t workspace = 0;
  size_t total() const;
};

// Elements [first, first + elements) of a buffer; -1: all from the first on.
struct Part {
  int64_t first = 0;
  int64_t elements = -1;
};

class Session {
 public:
  // `poison`: before each run, fill the arena and the workspace with 0xFF bytes (NaN), so that tests see uninitialised reads.
  explicit Session(std::unique_ptr<Backend> backend, bool poison = false);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  const Backend& backend() const { return *backend_; }

  // A buffer held until the session ends (or, with a parent, a view of one), zeroed. Returns its id, and soon: see settle().
  // Throws ERR_INVALID_ARGUMENT, ERR_OUT_OF_MEMORY.
  size_t addBuffer(const BufferSpec& spec);
  // Gives new buffers their memory, as far as they have not got it. Before work.
  void settle() noexcept;
  // Checks, plans and keeps a program. Operand ids from the present number of session buffers on are
  // `locals`, in order.
  size_t addProgram(const std::vector<BufferSpec>& locals, std::vector<Op> ops);
  size_t programs() const { return programs_.size(); }

  struct Input {
    size_t id;
    HostArray values;
  };
  // Writes the inputs, runs, and reads the outputs (ids of session buffers or of the program's pinned buffers) as the run leaves
  // them. Where backend().runsAhead(), it may return before; the session may be used meanwhile, and what is asked of it comes
  // after. The results must not outlive the session. Inputs, and outputs, that lie side by side in the arena are one copy: the plan
  // places pinned buffers in their order.
  std::unique_ptr<PendingResults> start(size_t program, const std::vector<Input>& inputs, const std::vector<size_t>& outputs,
                                        const std::atomic<bool>& cancelled);
  std::vector<HostArray> run(size_t program, const std::vector<Input>& inputs, const std::vector<size_t>& outputs,
                             const std::atomic<bool>& cancelled);

  // Session buffers between runs.
  HostArray read(size_t id, const Part& part = {}) const;
  void write(size_t id, const HostArray& values, const Part& part = {});
  // A buffer of reals: initial values, and zeros where no tensor lies. Leaves it as it is once `cancelled`.
  void initialize(size_t id, uint64_t seed, const std::vector<InitialTensor>& tensors, const std::atomic<bool>& cancelled);

  // What has been allocated, as counted where it is allocated. The arena, the workspace and what is prepared, which counts as
  // parameters, are allocated by the first run.
  MemoryReport allocated() const { return allocated_; }
  // What the session will hold once `program` has run (the arena is as large as the largest program's that ran).
  MemoryReport planned(size_t program) const;

 private:
  struct Program;
  class Run;
  struct Span;
  struct Allocation {
    void* memory = nullptr;
    size_t bytes = 0;
  };

  std::pair<BufferSpec, std::byte*> partOf(size_t id, const Part& part) const;
  void reserve(const Program& program);
  void bind(Program& program);
  void grow(Allocation& allocation, size_t bytes, size_t& counted);
  HostArray download(const BufferSpec& spec, const std::byte* from) const;
  void upload(const BufferSpec& spec, std::byte* to, const HostArray& values);
  void uploadAll(const Program& program, const std::vector<Input>& inputs);
  template <class IdOf>
  std::vector<Span> spans(const Program& program, const IdOf& idOf, size_t count) const;

  std::unique_ptr<Backend> backend_;
  bool poison_;
  std::vector<BufferSpec> buffers_;
  std::vector<std::byte*> addresses_;  // of session buffers
  std::vector<void*> owned_;
  size_t settled_ = 0;  // how many of them settle() has seen
  std::vector<std::unique_ptr<Program>> programs_;
  Allocation arena_, workspace_, prepared_;
  MemoryReport allocated_;
};

}  // namespace revnet
