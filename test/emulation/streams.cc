// Streams, events, copies, launches and graphs. Work is kept until the host waits for it; then it runs in the thread that waits.
#include <algorithm>
#include <chrono>
#include <cstring>

#include "emulation/runtime.h"

using namespace revnet::emulation;

namespace revnet::emulation {

CUstream_st* Runtime::find(cudaStream_t stream) {
  if (!stream) return &currentDevice().defaultStream;
  return streams.contains(stream) ? stream : nullptr;
}

cudaError_t Runtime::enqueue(cudaStream_t handle, Node node, uint64_t* number) {
  CUstream_st* stream = find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  if (stream->capture) {
    if (!stream->capture->valid) return report(cudaErrorStreamCaptureInvalidated);
    stream->capture->nodes.push_back(std::move(node));
    if (stream != stream->capture->origin) stream->capture->unjoined.insert(stream);
    return cudaSuccess;
  }
  if (!handle)
    for (CUstream_st* other : streams)
      if (other->capture && other->blocking) return report(cudaErrorStreamCaptureImplicit);
  stream->pending.push_back({std::move(node), ++numbers});
  if (number) *number = numbers;
  return cudaSuccess;
}

void Runtime::runFront(CUstream_st& stream) {
  Work work = std::move(stream.pending.front());
  stream.pending.pop_front();
  CUstream_st& legacy = devices[static_cast<size_t>(stream.device)]->defaultStream;
  if (&stream == &legacy) {
    for (CUstream_st* other : streams)
      if (other->blocking && other->device == stream.device) runStream(*other, work.number);
  } else if (stream.blocking) {
    runStream(legacy, work.number);
  }
  if (fault.empty()) runNode(work.node, stream.pending.empty() ? nullptr : &stream.pending.front().node);
}

void Runtime::runNode(const Node& node, const Node* next) {
  if (!node.launch) return node.run();
  const std::string error = runLaunch(node.launch, next ? next->launch : nullptr, random);
  if (error.empty()) return;
  setFault(error);
  forgetEarly();
}

void Runtime::runStream(CUstream_st& stream, uint64_t upTo) {
  while (!stream.pending.empty() && stream.pending.front().number <= upTo) runFront(stream);
}

void Runtime::runOne() {
  std::vector<CUstream_st*> busy;
  for (const auto& device : devices)
    if (!device->defaultStream.pending.empty()) busy.push_back(&device->defaultStream);
  for (CUstream_st* stream : streams)
    if (!stream->pending.empty()) busy.push_back(stream);
  if (!busy.empty()) runFront(*busy[random.below(busy.size())]);
}

void Runtime::runAll() {
  const auto busy = [&] {
    return std::any_of(streams.begin(), streams.end(), [](const CUstream_st* stream) { return !stream->pending.empty(); }) ||
           std::any_of(devices.begin(), devices.end(), [](const auto& device) { return !device->defaultStream.pending.empty(); });
  };
  while (busy()) runOne();
}

namespace {

Runtime& runtime() { return Runtime::get(); }

cudaError_t outcome() { return report(runtime().fault.empty() ? cudaSuccess : cudaErrorLaunchFailure); }

// A call that waits for a stream that captures spoils the capture.
bool spoilsCapture(const CUstream_st& stream) {
  if (stream.capture) stream.capture->valid = false;
  return stream.capture != nullptr;
}

double now() { return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

cudaError_t enqueueLaunch(cudaStream_t stream, Launch launch) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  constexpr unsigned kMaxHeight = 65535;
  const dim3 grid = launch.grid;
  const bool possible = launch.threads >= 1 && launch.threads <= 1024 && grid.x >= 1 && grid.x <= 0x7FFFFFFF && grid.y >= 1 &&
                        grid.y <= kMaxHeight && grid.z >= 1 && grid.z <= kMaxHeight && launch.sharedBytes <= kMaxSharedBytes;
  if (!possible) return report(cudaErrorInvalidConfiguration);
  // Beyond what every kernel may have, it must have asked.
  constexpr size_t kSharedByDefault = 48 << 10;
  const auto asked = runtime().sharedBytes.find(launch.kernel);
  if (launch.sharedBytes > (asked == runtime().sharedBytes.end() ? kSharedByDefault : asked->second))
    return report(cudaErrorInvalidValue);
  return runtime().enqueue(stream, Node{nullptr, std::make_shared<const Launch>(std::move(launch))});
}

}  // namespace revnet::emulation

// ---- Copies ---------------------------------------------------------------------------------------------------------------

namespace {

bool isDevice(const void* memory, size_t bytes) { return runtime().findDeviceMemory(memory, bytes) != nullptr; }

// Whether the addresses are what `kind` says.
bool directionFits(const void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  switch (kind) {
    case cudaMemcpyHostToHost: return !isDevice(to, bytes) && !isDevice(from, bytes);
    case cudaMemcpyHostToDevice: return isDevice(to, bytes) && !isDevice(from, bytes);
    case cudaMemcpyDeviceToHost: return !isDevice(to, bytes) && isDevice(from, bytes);
    case cudaMemcpyDeviceToDevice: return isDevice(to, bytes) && isDevice(from, bytes);
    case cudaMemcpyDefault: return true;
  }
  return false;
}

}  // namespace

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const Call call;
  if (call.status() != cudaSuccess || bytes == 0) return call.status();
  if (!directionFits(to, from, bytes, kind)) return report(cudaErrorInvalidValue);
  CUstream_st* const found = runtime().find(stream);
  if (!found) return report(cudaErrorInvalidResourceHandle);
  ++runtime().copies;
  const auto isPageable = [&](const void* memory) { return !isDevice(memory, bytes) && !runtime().isPinned(memory, bytes); };
  if (isPageable(from) && !found->capture) {
    // Staged before the call returns.
    const auto* first = static_cast<const std::byte*>(from);
    std::vector<std::byte> staged(first, first + bytes);
    return runtime().enqueue(stream, [to, staged = std::move(staged)] { std::memcpy(to, staged.data(), staged.size()); });
  }
  const cudaError_t status = runtime().enqueue(stream, [to, from, bytes] { std::memmove(to, from, bytes); });
  if (status != cudaSuccess || found->capture || !isPageable(to)) return status;
  // Into pageable memory it returns once the copy has been made.
  runtime().runStream(*found);
  return outcome();
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  const Call call(true);
  if (call.status() != cudaSuccess) return call.status();
  const cudaError_t status = cudaMemcpyAsync(to, from, bytes, kind, nullptr);
  return status == cudaSuccess ? cudaStreamSynchronize(nullptr) : status;
}

cudaError_t cudaMemsetAsync(void* memory, int value, size_t bytes, cudaStream_t stream) {
  const Call call;
  if (call.status() != cudaSuccess || bytes == 0) return call.status();
  if (!isDevice(memory, bytes)) return report(cudaErrorInvalidValue);
  return runtime().enqueue(stream, [memory, value, bytes] { std::memset(memory, value, bytes); });
}

cudaError_t cudaMemset(void* memory, int value, size_t bytes) {
  const Call call(true);
  return call.status() != cudaSuccess ? call.status() : cudaMemsetAsync(memory, value, bytes, nullptr);
}

// ---- Streams --------------------------------------------------------------------------------------------------------------

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  *stream = new CUstream_st;
  (*stream)->device = currentDeviceNumber();
  (*stream)->blocking = (flags & cudaStreamNonBlocking) == 0;
  runtime().streams.insert(*stream);
  return cudaSuccess;
}

cudaError_t cudaStreamCreate(cudaStream_t* stream) { return cudaStreamCreateWithFlags(stream, cudaStreamDefault); }

cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  const Call call;
  if (!runtime().streams.contains(stream)) return report(cudaErrorInvalidResourceHandle);
  runtime().runStream(*stream);
  runtime().streams.erase(stream);
  for (CUevent_st* event : runtime().events)
    if (event->stream == stream) event->stream = nullptr;
  delete stream;
  return call.status();
}

cudaError_t cudaStreamSynchronize(cudaStream_t handle) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  CUstream_st* const stream = runtime().find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  if (spoilsCapture(*stream)) return report(cudaErrorStreamCaptureUnsupported);
  ++runtime().spins;
  runtime().runStream(*stream);
  return outcome();
}

cudaError_t cudaStreamQuery(cudaStream_t handle) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  CUstream_st* const stream = runtime().find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  if (spoilsCapture(*stream)) return report(cudaErrorStreamCaptureUnsupported);
  if (!stream->pending.empty()) runtime().runOne();  // who polls must get there
  return stream->pending.empty() ? outcome() : cudaErrorNotReady;
}

cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function, void* data) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  return runtime().enqueue(stream, [function, data] { function(data); });
}

// ---- Events ---------------------------------------------------------------------------------------------------------------

cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  *event = new CUevent_st;
  (*event)->timed = (flags & cudaEventDisableTiming) == 0;
  (*event)->blocking = (flags & cudaEventBlockingSync) != 0;
  runtime().events.insert(*event);
  return cudaSuccess;
}

cudaError_t cudaEventCreate(cudaEvent_t* event) { return cudaEventCreateWithFlags(event, cudaEventDefault); }

cudaError_t cudaEventDestroy(cudaEvent_t event) {
  const Call call;
  if (runtime().events.erase(event) == 0) return report(cudaErrorInvalidResourceHandle);
  delete event;
  return call.status();
}

cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t handle) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  CUstream_st* const stream = runtime().find(handle);
  if (!stream || !runtime().events.contains(event)) return report(cudaErrorInvalidResourceHandle);
  event->capture = stream->capture;
  event->stream = stream;
  if (stream->capture) return stream->capture->valid ? cudaSuccess : report(cudaErrorStreamCaptureInvalidated);
  const auto complete = [event, number = runtime().numbers + 1] {
    if (!runtime().events.contains(event)) return;  // destroyed meanwhile
    event->completed = number;
    event->milliseconds = now();
  };
  return runtime().enqueue(handle, complete, &event->recorded);
}

cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  CUstream_st* const stream = runtime().find(handle);
  if (!stream || !runtime().events.contains(event)) return report(cudaErrorInvalidResourceHandle);
  if (const auto capture = event->capture.lock()) {
    // The stream joins the capture, or the capture's origin waits for a stream that had joined.
    if (stream->capture && stream->capture != capture) return report(cudaErrorStreamCaptureInvalidated);
    stream->capture = capture;
    if (stream == capture->origin) capture->unjoined.erase(event->stream);
    return cudaSuccess;
  }
  if (event->completed == event->recorded || !event->stream) return cudaSuccess;
  return runtime().enqueue(handle, [other = event->stream, number = event->recorded] {
    if (runtime().streams.contains(other)) runtime().runStream(*other, number);
  });
}

cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (!runtime().events.contains(event)) return report(cudaErrorInvalidResourceHandle);
  if (!event->capture.expired()) return report(cudaErrorCapturedEvent);
  if (!event->blocking) ++runtime().spins;
  if (event->completed != event->recorded && event->stream) runtime().runStream(*event->stream, event->recorded);
  return outcome();
}

cudaError_t cudaEventQuery(cudaEvent_t event) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (!runtime().events.contains(event)) return report(cudaErrorInvalidResourceHandle);
  if (!event->capture.expired()) return report(cudaErrorCapturedEvent);
  if (event->completed != event->recorded) runtime().runOne();  // who polls must get there
  return event->completed == event->recorded ? outcome() : cudaErrorNotReady;
}

cudaError_t cudaEventElapsedTime(float* milliseconds, cudaEvent_t start, cudaEvent_t end) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  for (const cudaEvent_t event : {start, end}) {
    if (!runtime().events.contains(event) || !event->timed || event->recorded == 0) return report(cudaErrorInvalidResourceHandle);
    if (event->completed != event->recorded) return cudaErrorNotReady;
  }
  *milliseconds = static_cast<float>(end->milliseconds - start->milliseconds);
  return cudaSuccess;
}

// ---- Graphs ---------------------------------------------------------------------------------------------------------------

cudaError_t cudaStreamBeginCapture(cudaStream_t handle, cudaStreamCaptureMode mode) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  // The legacy stream cannot capture.
  if (!handle) return report(cudaErrorStreamCaptureUnsupported);
  CUstream_st* const stream = runtime().find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  if (stream->capture) return report(cudaErrorStreamCaptureUnsupported);
  stream->capture = std::make_shared<Capture>();
  stream->capture->origin = stream;
  stream->capture->thread = std::this_thread::get_id();
  stream->capture->mode = mode;
  std::erase_if(runtime().captures, [](const auto& weak) { return weak.expired(); });
  runtime().captures.push_back(stream->capture);
  return cudaSuccess;
}

cudaError_t cudaStreamEndCapture(cudaStream_t handle, cudaGraph_t* graph) {
  const Call call;
  *graph = nullptr;
  if (call.status() != cudaSuccess) return call.status();
  CUstream_st* const stream = runtime().find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  const std::shared_ptr<Capture> capture = stream->capture;
  if (!capture || capture->origin != stream) return report(cudaErrorInvalidValue);
  if (capture->mode != cudaStreamCaptureModeRelaxed && capture->thread != std::this_thread::get_id())
    return report(cudaErrorStreamCaptureWrongThread);
  for (CUstream_st* other : runtime().streams)
    if (other->capture == capture) other->capture = nullptr;
  if (!capture->valid) return report(cudaErrorStreamCaptureInvalidated);
  if (!capture->unjoined.empty()) return report(cudaErrorStreamCaptureUnjoined);
  *graph = new CUgraph_st{std::move(capture->nodes)};
  runtime().graphs.insert(*graph);
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t handle, cudaStreamCaptureStatus* status) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  const CUstream_st* const stream = runtime().find(handle);
  if (!stream) return report(cudaErrorInvalidResourceHandle);
  *status = !stream->capture         ? cudaStreamCaptureStatusNone
            : stream->capture->valid ? cudaStreamCaptureStatusActive
                                     : cudaStreamCaptureStatusInvalidated;
  return cudaSuccess;
}

cudaError_t cudaGraphInstantiate(cudaGraphExec_t* executable, cudaGraph_t graph, unsigned long long) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (!runtime().graphs.contains(graph)) return report(cudaErrorInvalidValue);
  *executable = new CUgraphExec_st{std::make_shared<const std::vector<Node>>(graph->nodes)};
  runtime().executables.insert(*executable);
  return cudaSuccess;
}

cudaError_t cudaGraphGetNodes(cudaGraph_t graph, void*, size_t* count) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (!runtime().graphs.contains(graph)) return report(cudaErrorInvalidValue);
  *count = graph->nodes.size();
  return cudaSuccess;
}

cudaError_t cudaGraphUpload(cudaGraphExec_t executable, cudaStream_t) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  return runtime().executables.contains(executable) ? cudaSuccess : report(cudaErrorInvalidValue);
}

cudaError_t cudaGraphLaunch(cudaGraphExec_t executable, cudaStream_t stream) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (!runtime().executables.contains(executable)) return report(cudaErrorInvalidValue);
  return runtime().enqueue(stream, [nodes = executable->nodes] {
    for (size_t i = 0; i < nodes->size() && runtime().fault.empty(); ++i)
      runtime().runNode((*nodes)[i], i + 1 < nodes->size() ? &(*nodes)[i + 1] : nullptr);
  });
}

cudaError_t cudaGraphExecDestroy(cudaGraphExec_t executable) {
  const Call call;
  if (runtime().executables.erase(executable) == 0) return report(cudaErrorInvalidValue);
  delete executable;
  return call.status();
}

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  const Call call;
  if (runtime().graphs.erase(graph) == 0) return report(cudaErrorInvalidValue);
  delete graph;
  return call.status();
}

// ---- Kernels --------------------------------------------------------------------------------------------------------------

cudaError_t revnetSetFunctionAttribute(const void* kernel, cudaFuncAttribute attribute, int value) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) return cudaSuccess;
  if (value < 0 || static_cast<size_t>(value) > kMaxSharedBytes) return report(cudaErrorInvalidValue);
  runtime().sharedBytes[kernel] = static_cast<size_t>(value);
  return cudaSuccess;
}

cudaError_t revnetGetFunctionAttributes(cudaFuncAttributes* attributes, const void*) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  *attributes = {};
  attributes->ptxVersion = attributes->binaryVersion = 90;
  return cudaSuccess;
}
