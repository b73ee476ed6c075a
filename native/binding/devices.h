// Which devices there are, and a backend for the one that is asked for.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/backend.h"
#include "reader.h"

namespace revnet {

constexpr int kMaxThreads = 1024;

struct DeviceOptions {
  std::string device;  // "reference", "cpu", "cuda" or "cuda:N"
  int threads = 1;
  std::string isa = "auto";
  Precision precision = Precision::Float32;
  std::optional<Precision> streamGradients;  // default: bfloat16 where that is the precision
  bool poison = false;
};

struct Device {
  std::string name;
  bool available;
  std::string description;  // what it is, or why it is not available
};

DeviceOptions readDeviceOptions(const Reader& reader);
// Throws Error ERR_DEVICE_UNAVAILABLE, or ERR_INVALID_ARGUMENT for a name that no device can have.
std::unique_ptr<Backend> makeBackend(const DeviceOptions& options);
std::vector<Device> listDevices();
// Bytes that can be allocated on the device now; of the host, unless it is a CUDA device.
uint64_t availableBytes(const std::string& device);

}  // namespace revnet
