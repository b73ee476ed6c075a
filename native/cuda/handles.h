// Owners of what CUDA hands out. Each belongs to the device that is current when it is made, and must be again when it ends.
#pragma once

#include <cstddef>
#include <memory>

#include "cuda/device.h"

namespace revnet::cuda {

// Destructors cannot throw, and what fails here fails because the device is lost: there is nothing left to free.
struct Release {
  void operator()(cudaStream_t stream) const { cudaStreamDestroy(stream); }
  void operator()(cudaEvent_t event) const { cudaEventDestroy(event); }
  void operator()(cudaGraph_t graph) const { cudaGraphDestroy(graph); }
  void operator()(cudaGraphExec_t graph) const { cudaGraphExecDestroy(graph); }
};
template <class Handle>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Release>;

using Stream = Owned<cudaStream_t>;
using Event = Owned<cudaEvent_t>;
using Graph = Owned<cudaGraph_t>;
using ExecutableGraph = Owned<cudaGraphExec_t>;

struct ReleaseDevice {
  void operator()(void* memory) const { cudaFree(memory); }
};
template <class T>
using DeviceMemory = std::unique_ptr<T, ReleaseDevice>;

struct ReleasePinned {
  void operator()(void* memory) const { cudaFreeHost(memory); }
};
using PinnedMemory = std::unique_ptr<std::byte, ReleasePinned>;

// A stream of its own: not synchronised with the legacy default stream, which other code in the process may use.
inline Stream makeStream() {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "stream");
  return Stream(stream);
}

// Who waits for it sleeps: a step takes long enough that a spinning thread would take a core from those that decode images.
inline Event makeEvent() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "event");
  return Event(event);
}

// Waits, asleep, for all that was enqueued on the stream (cudaStreamSynchronize would spin). `event`: any, of the same device.
inline cudaError_t waitFor(cudaStream_t stream, cudaEvent_t event) {
  const cudaError_t status = cudaEventRecord(event, stream);
  return status == cudaSuccess ? cudaEventSynchronize(event) : status;
}

inline PinnedMemory makePinnedMemory(size_t bytes) {
  void* memory = nullptr;
  check(cudaMallocHost(&memory, bytes), "pinned memory");
  return PinnedMemory(static_cast<std::byte*>(memory));
}

}  // namespace revnet::cuda
