// What a device has to offer: memory, copies, and the replay of a recorded list of ops. Three implement it: reference
// (float64, the definition of every op), cpu and cuda. Backends never see each other.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

#include "buffer.h"
#include "error.h"
#include "ops.h"

namespace revnet {

// What a convolution multiplies: float32, or operands rounded to tf32 (10 stored fraction bits) or bfloat16 (7). Sums are float32
// in all of them. With Bfloat16, tensors of the types `hidden` and `gradient` are also stored so (buffer.h). The CPU has Float32
// only; the reference backend computes in float64, whatever is asked.
enum class Precision { Float32, Tf32, Bfloat16 };
inline constexpr const char* kPrecisionNames[] = {"float32", "tf32", "bfloat16"};

// Where a program's operands are. Built by the session once the plan has placed them.
struct Memory {
  std::vector<std::byte*> addresses;                 // by operand id
  std::vector<ElementType> types;                    // by operand id
  std::array<size_t, kElementTypes> elementBytes{};  // by element type
  std::byte* workspace = nullptr;  // scratch of at least workspaceBytes(op), shared by all ops, undefined on entry
  std::byte* prepared = nullptr;   // of preparedBytes, undefined when the program starts

  // Null for an absent operand.
  template <class T>
  T* at(Operand operand) const {
    return operand ? reinterpret_cast<T*>(addresses[static_cast<size_t>(operand.id)]) : nullptr;
  }
  ElementType typeOf(Operand operand) const { return types[static_cast<size_t>(operand.id)]; }
  size_t bytesOf(Operand operand) const { return elementBytes[static_cast<size_t>(typeOf(operand))]; }  // of an element
  bool isFixed(Operand operand) const { return typeOf(operand) == ElementType::Fixed; }
};

// A program bound to its memory. Runs again and again with the same addresses; what changes between runs is in buffers.
class Replay {
 public:
  virtual ~Replay() = default;
  // Runs the program, or enqueues it: what the backend is asked for next comes after it. Returns early, with buffers undefined,
  // once `cancelled` is true. What goes wrong may show in a later call.
  virtual void run(const std::atomic<bool>& cancelled) = 0;
};

// A copy to the host that has been asked for.
class Download {
 public:
  virtual ~Download() = default;
  // Whether wait() would return at once.
  virtual bool ready() = 0;
  // The bytes, there for as long as this is. Throws what went wrong before the copy.
  virtual const std::byte* wait() = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  // One line for people: the instruction set and threads, or the GPU.
  virtual std::string description() const = 0;
  virtual size_t elementBytes(ElementType type) const = 0;
  // Fraction bits of a fixed-point stream.
  virtual int fractionBits() const = 0;

  // Memory aligned to kAlignment bytes, contents undefined. Throws Error ERR_OUT_OF_MEMORY.
  virtual void* allocate(size_t bytes) = 0;
  // The same, zeros. Returns soon however much it is: what takes time is left to settle().
  virtual void* allocateZeros(size_t bytes);
  // What allocateZeros() has left to do, if anything. On the thread that works.
  virtual void settle(void* /* memory */) noexcept {}
  virtual void release(void* memory) noexcept = 0;
  // The host's memory may be changed once upload returns, and read once download does.
  virtual void upload(void* to, const void* from, size_t bytes) = 0;
  virtual void download(void* to, const void* from, size_t bytes) = 0;
  // Copies the memory as it is after all that was asked for before, whatever is asked for next. Waits, unless runsAhead().
  virtual std::unique_ptr<Download> beginDownload(const void* from, size_t bytes);
  // Whether a replay's run() and beginDownload() of a few bytes return before the device has done them, so that the next run can be
  // asked for meanwhile.
  virtual bool runsAhead() const { return false; }
  virtual void fill(void* to, std::byte value, size_t bytes) = 0;
  // Waits for all that was asked for, and throws what went wrong meanwhile.
  virtual void finish() {}

  // Scratch that one op needs while it runs.
  virtual size_t workspaceBytes(const Op& op) const = 0;
  // Memory in which a program keeps what it makes of parameters for all of its ops, while it runs. `types`: of its operands, by id.
  virtual size_t preparedBytes(const std::vector<Op>&, const std::vector<ElementType>& /* types */) const { return 0; }
  // `ops` and `memory` outlive the replay.
  virtual std::unique_ptr<Replay> record(const std::vector<Op>& ops, const Memory& memory) = 0;
};

// Every buffer starts on such a boundary: a cache line, and the widest vector.
constexpr size_t kAlignment = 64;
constexpr size_t alignUp(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

std::unique_ptr<Backend> makeReferenceBackend();
// `threads` >= 1; `isa`: "auto", "avx512", "avx2" or "portable" (throws if this processor lacks it).
std::unique_ptr<Backend> makeCpuBackend(int threads, const std::string& isa);
// `streamGradients`: what tensors of the type `gradient` are stored as, Float32, or Bfloat16 where that is the precision. Throws
// Error ERR_DEVICE_UNAVAILABLE, saying why, where there is no such CUDA device, where it lacks the precision, or where this build
// has no CUDA.
std::unique_ptr<Backend> makeCudaBackend(int device, Precision precision, Precision streamGradients);

}  // namespace revnet
