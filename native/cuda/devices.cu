// Which GPUs there are, and whether this build has code for them. Asks without making a context on any of them.
#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <sstream>

#include "cuda/device.h"
#include "cuda/devices.h"

namespace revnet {
namespace {

constexpr int kOldestCapability = 75;  // the first with ldmatrix

// 13000 is 13.0.
std::string versionName(int version) { return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10); }

int runtimeVersion() {
  int version = 0;
  return cudaRuntimeGetVersion(&version) == cudaSuccess ? version : 0;
}

int driverVersion() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}

std::string describe(cudaError_t status) { return std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status); }

// The release of the driver, such as "550.54.14"; empty where the system does not tell (it does on Linux).
std::string driverRelease() {
  std::ifstream file("/proc/driver/nvidia/version");
  for (std::string word; file >> word;)
    if (word.find('.') != std::string::npos && word.find_first_not_of("0123456789.") == std::string::npos) return word;
  return "";
}

// The first release of the driver that a toolkit of this version runs with (NVIDIA's "minor version compatibility").
int neededRelease(int toolkit) { return toolkit >= 13000 ? 580 : toolkit >= 12000 ? 525 : 450; }

std::string whyNone(cudaError_t status) {
  // The runtime reports a driver that is missing like one that is too old.
  const int driver = driverVersion(), toolkit = runtimeVersion();
  if (driver == 0) return "there is no NVIDIA driver on this machine";
  if (status == cudaErrorInsufficientDriver) {
    const std::string release = driverRelease();
    return "this build uses CUDA " + versionName(toolkit) + ", which needs an NVIDIA driver of release " +
           std::to_string(neededRelease(toolkit)) + " or later; the driver here" + (release.empty() ? "" : ", " + release + ",") +
           " knows CUDA up to " + versionName(driver) + ": update the driver, or build with an older toolkit";
  }
  if (status == cudaErrorNoDevice) return "the NVIDIA driver finds no GPU (or CUDA_VISIBLE_DEVICES hides it)";
  return describe(status);
}

// Comma-separated; empty in a build that runs anywhere.
std::vector<std::string> compiledArchitectures() {
  std::vector<std::string> all;
#if defined(REVNET_CUDA_ARCHITECTURES)
  std::istringstream list(REVNET_CUDA_ARCHITECTURES);
  for (std::string one; std::getline(list, one, ',');) all.push_back(one);
#endif
  return all;
}

CudaDevice describeDevice(int number, const std::vector<std::string>& architectures) {
  cudaDeviceProp properties{};
  if (const cudaError_t status = cudaGetDeviceProperties(&properties, number); status != cudaSuccess)
    return {"CUDA device " + std::to_string(number), 0, describe(status)};
  const int capability = properties.major * 10 + properties.minor;
  std::ostringstream text;
  text << properties.name << ", compute capability " << properties.major << '.' << properties.minor << ", "
       << (properties.totalGlobalMem + (size_t{1} << 29)) / (size_t{1} << 30) << " GiB, " << properties.multiProcessorCount
       << " multiprocessors";
  CudaDevice device{text.str(), capability, ""};
  const auto runs = [&](const std::string& architecture) { return codeRunsOn(architecture, capability); };
  if (capability < kOldestCapability) {
    device.absence = "compute capability 7.5 is the oldest that will do, and this is " + device.description;
  } else if (!architectures.empty() && std::none_of(architectures.begin(), architectures.end(), runs)) {
    device.absence = "this build has no code for it (" + device.description + "), only for";
    for (const std::string& architecture : architectures) device.absence += " " + architecture;
    device.absence += ": build again with REVNET_CUDA_ARCHITECTURES=" + std::to_string(capability);
  }
  return device;
}

}  // namespace

bool codeRunsOn(const std::string& architecture, int capability) {
  if (architecture.empty() || architecture[0] < '0' || architecture[0] > '9') return true;
  const int own = std::atoi(architecture.c_str());
  const std::string name = architecture.substr(0, architecture.find('-'));
  if (name.back() == 'a') return capability == own;
  const bool real = architecture.find("-virtual") == std::string::npos, ptx = architecture.find("-real") == std::string::npos;
  const bool sameMajor = capability / 10 == own / 10;
  return capability >= own && (sameMajor ? real || ptx : ptx && name.back() != 'f');
}

CudaDevices cudaDevices() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess || count == 0) {
    cudaGetLastError();
    return {{}, whyNone(status == cudaSuccess ? cudaErrorNoDevice : status)};
  }
  CudaDevices all;
  const std::vector<std::string> architectures = compiledArchitectures();
  for (int number = 0; number < count; ++number) all.devices.push_back(describeDevice(number, architectures));
  return all;
}

uint64_t cudaFreeBytes(int device) {
  size_t free = 0, total = 0;
  cuda::check(cudaSetDevice(device), "device");
  cuda::check(cudaMemGetInfo(&free, &total), "memory");
  return free;
}

CudaBuild cudaBuild() {
  const int driver = driverVersion();
  return {versionName(runtimeVersion()), compiledArchitectures(), driver == 0 ? std::string() : versionName(driver)};
}

}  // namespace revnet
