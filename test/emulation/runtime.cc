// Errors, devices and memory.
#include "emulation/runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>

#include "emulation/control.h"

using namespace revnet::emulation;

namespace revnet::emulation {
namespace {

thread_local cudaError_t lastError = cudaSuccess;
thread_local int threadDevice = 0;

uint64_t environmentNumber(const char* name, uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text && *text ? std::strtoull(text, nullptr, 10) : otherwise;
}

}  // namespace

Runtime& Runtime::get() {
  static Runtime only;
  return only;
}

Configuration Configuration::ofEnvironment() {
  const char* count = std::getenv("REVNET_EMULATION_DEVICES");
  const bool none = count && std::strcmp(count, "none") == 0;
  static const uint64_t drawn = std::random_device()() % 1'000'000;  // one for the process
  return {environmentNumber("REVNET_EMULATION_SEED", drawn),
          none ? 0 : static_cast<int>(environmentNumber("REVNET_EMULATION_DRIVER", CUDART_VERSION)),
          none ? 0 : environmentNumber("REVNET_EMULATION_DEVICES", 1),
          environmentNumber("REVNET_EMULATION_MEMORY", uint64_t{4} << 30)};
}

void Runtime::restart(const Configuration& configuration) {
  const std::lock_guard guard(lock);
  for (CUstream_st* stream : streams) stream->pending.clear();
  forgetEarly();
  devices.clear();
  pinned.clear();
  sharedBytes.clear();
  copies = spins = 0;
  fault.clear();
  seed = configuration.seed;
  random = Random(seed);
  driver = configuration.driver;
  for (uint64_t i = 0; i < configuration.devices; ++i) {
    devices.push_back(std::make_unique<Device>());
    devices.back()->limit = configuration.memory;
    devices.back()->defaultStream.device = static_cast<int>(i);
  }
  threadDevice = 0;
  lastError = cudaSuccess;
}

void restart(uint64_t seed) {
  Configuration configuration = Configuration::ofEnvironment();
  configuration.seed = seed;
  Runtime::get().restart(configuration);
}
void restartWith(size_t devices, size_t bytes) { Runtime::get().restart({0, CUDART_VERSION, devices, bytes}); }
uint64_t seed() { return Runtime::get().seed; }

void Runtime::setFault(const std::string& what) {
  if (fault.empty()) fault = what + " [REVNET_EMULATION_SEED=" + std::to_string(seed) + "]";
}

bool Runtime::isPinned(const void* address, size_t bytes) const {
  auto* const at = static_cast<std::byte*>(const_cast<void*>(address));
  auto after = pinned.upper_bound(at);
  if (after == pinned.begin()) return false;
  const GuardedMemory& memory = *std::prev(after)->second;
  return at + bytes <= memory.data() + memory.bytes();
}

GuardedMemory* Runtime::findDeviceMemory(const void* address, size_t bytes, Device** owner) const {
  auto* const at = static_cast<std::byte*>(const_cast<void*>(address));
  for (const auto& device : devices) {
    auto after = device->memory.upper_bound(at);
    if (after == device->memory.begin()) continue;
    GuardedMemory& memory = *std::prev(after)->second;
    if (at + bytes > memory.data() + memory.bytes()) continue;
    if (owner) *owner = device.get();
    return &memory;
  }
  return nullptr;
}

bool isDeviceMemory(const void* address, size_t bytes) { return Runtime::get().findDeviceMemory(address, bytes) != nullptr; }

cudaError_t report(cudaError_t error) {
  if (error != cudaSuccess && error != cudaErrorNotReady) lastError = error;
  return error;
}

Device& currentDevice() { return *Runtime::get().devices[static_cast<size_t>(threadDevice)]; }
int currentDeviceNumber() { return threadDevice; }

Call::Call(bool unsafe) : guard_(Runtime::get().lock) {
  Runtime& runtime = Runtime::get();
  if (runtime.driver < CUDART_VERSION)
    status_ = cudaErrorInsufficientDriver;
  else if (runtime.devices.empty())
    status_ = cudaErrorNoDevice;
  else if (!runtime.fault.empty())
    status_ = cudaErrorLaunchFailure;
  else if (unsafe)
    for (const auto& weak : runtime.captures)
      if (const auto capture = weak.lock())
        if (capture->mode == cudaStreamCaptureModeGlobal ||
            (capture->mode == cudaStreamCaptureModeThreadLocal && capture->thread == std::this_thread::get_id())) {
          capture->valid = false;
          status_ = cudaErrorStreamCaptureUnsupported;
        }
  report(status_);
}

}  // namespace revnet::emulation

// ---- Errors ---------------------------------------------------------------------------------------------------------------

cudaError_t cudaGetLastError() {
  const cudaError_t error = lastError;
  const std::lock_guard guard(Runtime::get().lock);
  lastError = Runtime::get().fault.empty() ? cudaSuccess : cudaErrorLaunchFailure;
  return error;
}

cudaError_t cudaPeekAtLastError() { return lastError; }

namespace {

struct ErrorText {
  cudaError_t error;
  const char *name, *text;
};
#define ERROR_TEXT(name, text) \
  { name, #name, text }
constexpr ErrorText kErrorTexts[] = {
    ERROR_TEXT(cudaSuccess, "no error"),
    ERROR_TEXT(cudaErrorInvalidValue, "invalid argument"),
    ERROR_TEXT(cudaErrorMemoryAllocation, "out of memory"),
    ERROR_TEXT(cudaErrorInvalidConfiguration, "invalid configuration argument"),
    ERROR_TEXT(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
    ERROR_TEXT(cudaErrorInsufficientDriver, "CUDA driver version is insufficient for CUDA runtime version"),
    ERROR_TEXT(cudaErrorNoDevice, "no CUDA-capable device is detected"),
    ERROR_TEXT(cudaErrorInvalidDevice, "invalid device ordinal"),
    ERROR_TEXT(cudaErrorInvalidResourceHandle, "invalid resource handle"),
    ERROR_TEXT(cudaErrorNotReady, "device not ready"),
    ERROR_TEXT(cudaErrorLaunchFailure, "unspecified launch failure"),
    ERROR_TEXT(cudaErrorNotSupported, "operation not supported"),
    ERROR_TEXT(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
    ERROR_TEXT(cudaErrorStreamCaptureInvalidated, "operation failed due to a previous error during capture"),
    ERROR_TEXT(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
    ERROR_TEXT(cudaErrorStreamCaptureImplicit, "operation would make the legacy stream depend on a capturing blocking stream"),
    ERROR_TEXT(cudaErrorCapturedEvent, "operation not permitted on an event last recorded in a capturing stream"),
    ERROR_TEXT(cudaErrorStreamCaptureWrongThread, "attempt to terminate a thread-local capture sequence from another thread"),
};
#undef ERROR_TEXT

const ErrorText* find(cudaError_t error) {
  for (const ErrorText& known : kErrorTexts)
    if (known.error == error) return &known;
  return nullptr;
}

}  // namespace

const char* cudaGetErrorName(cudaError_t error) {
  const ErrorText* known = find(error);
  return known ? known->name : "cudaErrorUnknown";
}

const char* cudaGetErrorString(cudaError_t error) {
  const std::lock_guard guard(Runtime::get().lock);
  // A real device says less.
  thread_local std::string text;
  const ErrorText* known = find(error);
  text = known ? known->text : "unknown error";
  if (error == cudaErrorLaunchFailure && !Runtime::get().fault.empty()) text += ": " + Runtime::get().fault;
  return text.c_str();
}

// ---- Devices --------------------------------------------------------------------------------------------------------------

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  const std::lock_guard guard(Runtime::get().lock);
  *version = Runtime::get().driver;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceCount(int* count) {
  const Call call;
  *count = static_cast<int>(Runtime::get().devices.size());
  return call.status();
}

namespace {
bool exists(int device) { return device >= 0 && static_cast<size_t>(device) < Runtime::get().devices.size(); }
}  // namespace

cudaError_t cudaSetDevice(int device) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (!exists(device)) return report(cudaErrorInvalidDevice);
  threadDevice = device;
  return cudaSuccess;
}

cudaError_t cudaGetDevice(int* device) {
  const Call call;
  *device = threadDevice;
  return call.status();
}

cudaError_t cudaInitDevice(int device, unsigned, unsigned) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  return exists(device) ? cudaSuccess : report(cudaErrorInvalidDevice);
}

cudaError_t cudaSetDeviceFlags(unsigned) { return Call().status(); }

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (!exists(device)) return report(cudaErrorInvalidDevice);
  *properties = {};
  std::snprintf(properties->name, sizeof(properties->name), "Emulated GPU (seed %llu)",
                static_cast<unsigned long long>(Runtime::get().seed));
  properties->totalGlobalMem = Runtime::get().devices[static_cast<size_t>(device)]->limit;
  const auto attribute = [&](cudaDeviceAttr which) {
    int value = 0;
    cudaDeviceGetAttribute(&value, which, device);
    return value;
  };
  properties->sharedMemPerBlock = static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlock));
  properties->sharedMemPerBlockOptin = static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerBlockOptin));
  properties->sharedMemPerMultiprocessor = static_cast<size_t>(attribute(cudaDevAttrMaxSharedMemoryPerMultiprocessor));
  properties->major = attribute(cudaDevAttrComputeCapabilityMajor);
  properties->minor = attribute(cudaDevAttrComputeCapabilityMinor);
  properties->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
  properties->warpSize = attribute(cudaDevAttrWarpSize);
  properties->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  properties->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  properties->l2CacheSize = attribute(cudaDevAttrL2CacheSize);
  properties->regsPerBlock = 65536;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  if (!exists(device)) return report(cudaErrorInvalidDevice);
  // Those of compute capability 9.0, but for shared memory.
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock: *value = 1024; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlock: *value = 48 << 10; return cudaSuccess;
    case cudaDevAttrWarpSize: *value = 32; return cudaSuccess;
    case cudaDevAttrMultiProcessorCount: *value = 4; return cudaSuccess;
    case cudaDevAttrL2CacheSize: *value = 50 << 20; return cudaSuccess;
    case cudaDevAttrMaxThreadsPerMultiProcessor: *value = 2048; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMajor: *value = 9; return cudaSuccess;
    case cudaDevAttrComputeCapabilityMinor: *value = 0; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = 100 << 10; return cudaSuccess;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = static_cast<int>(kMaxSharedBytes); return cudaSuccess;
    case cudaDevAttrMemoryPoolsSupported: *value = 1; return cudaSuccess;
  }
  return report(cudaErrorInvalidValue);
}

cudaError_t cudaDeviceSynchronize() {
  const Call call(true);
  if (call.status() != cudaSuccess) return call.status();
  Runtime::get().runAll();
  return report(Runtime::get().fault.empty() ? cudaSuccess : cudaErrorLaunchFailure);
}

cudaError_t cudaDeviceReset() {
  Runtime::get().configure();
  return cudaSuccess;
}

// ---- Memory ---------------------------------------------------------------------------------------------------------------

namespace {

cudaError_t allocate(void** memory, size_t bytes) {
  if (bytes == 0) {
    *memory = nullptr;
    return cudaSuccess;
  }
  Device& device = currentDevice();
  if (bytes > device.limit - device.used) return report(cudaErrorMemoryAllocation);
  std::unique_ptr<GuardedMemory> allocated;
  try {
    allocated = std::make_unique<GuardedMemory>(bytes, 256);
  } catch (const std::bad_alloc&) {
    return report(cudaErrorMemoryAllocation);
  }
  device.used += bytes;
  *memory = allocated->data();
  device.memory.emplace(allocated->data(), std::move(allocated));
  return cudaSuccess;
}

cudaError_t release(void* memory) {
  Device* owner = nullptr;
  const GuardedMemory* found = Runtime::get().findDeviceMemory(memory, 1, &owner);
  if (!found || found->data() != memory) return report(cudaErrorInvalidValue);
  if (!found->intact()) {
    Runtime::get().setFault("a kernel wrote past an allocation of " + std::to_string(found->bytes()) + " bytes");
    report(cudaErrorLaunchFailure);
  }
  owner->used -= found->bytes();
  owner->memory.erase(static_cast<std::byte*>(memory));
  return Runtime::get().fault.empty() ? cudaSuccess : cudaErrorLaunchFailure;
}

}  // namespace

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const Call call(true);
  return call.status() != cudaSuccess ? call.status() : allocate(memory, bytes);
}

cudaError_t cudaFree(void* memory) {
  const Call call(true);
  if (call.status() != cudaSuccess) return call.status();
  if (!memory) return cudaSuccess;
  Runtime::get().runAll();
  return release(memory);
}

cudaError_t cudaMallocAsync(void** memory, size_t bytes, cudaStream_t stream) {
  const Call call(true);
  if (call.status() != cudaSuccess) return call.status();
  return Runtime::get().find(stream) ? allocate(memory, bytes) : report(cudaErrorInvalidResourceHandle);
}

cudaError_t cudaFreeAsync(void* memory, cudaStream_t stream) {
  const Call call(true);
  if (call.status() != cudaSuccess || !memory) return call.status();
  return Runtime::get().enqueue(stream, [memory] { release(memory); });
}

cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  const Call call(true);
  if (call.status() != cudaSuccess) return call.status();
  try {
    auto allocated = std::make_unique<GuardedMemory>(bytes, 4096);
    *memory = allocated->data();
    Runtime::get().pinned.emplace(allocated->data(), std::move(allocated));
  } catch (const std::bad_alloc&) {
    return report(cudaErrorMemoryAllocation);
  }
  return cudaSuccess;
}

cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) { return cudaMallocHost(memory, bytes); }

cudaError_t cudaFreeHost(void* memory) {
  const Call call(true);
  if (call.status() != cudaSuccess) return call.status();
  if (!memory) return cudaSuccess;
  Runtime::get().runAll();
  return Runtime::get().pinned.erase(static_cast<std::byte*>(memory)) == 1 ? cudaSuccess : report(cudaErrorInvalidValue);
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  const Call call;
  if (call.status() != cudaSuccess) return call.status();
  *free = currentDevice().limit - currentDevice().used;
  *total = currentDevice().limit;
  return cudaSuccess;
}
