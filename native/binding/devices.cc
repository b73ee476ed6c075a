#include "devices.h"

#include <charconv>

#include "core/host_memory.h"
#include "cpu/backend.h"
#include "cuda/devices.h"

namespace revnet {
namespace {

constexpr const char* kStreamGradientNames[] = {"float32", "bfloat16"};

// "cuda" is the first GPU. Negative: not a CUDA device's name.
int cudaNumber(const std::string& device) {
  if (device == "cuda") return 0;
  constexpr std::string_view kPrefix = "cuda:";
  if (!device.starts_with(kPrefix)) return -1;
  int number = -1;
  const char* const last = device.data() + device.size();
  const auto [end, failure] = std::from_chars(device.data() + kPrefix.size(), last, number);
  return failure == std::errc() && end == last ? number : -1;
}

}  // namespace

DeviceOptions readDeviceOptions(const Reader& reader) {
  ObjectReader object(reader);
  DeviceOptions options;
  options.device = object.required("device").string();
  options.threads = static_cast<int>(object.required("threads").integer(1, kMaxThreads));
  if (const auto isa = object.optional("isa")) options.isa = isa->string();
  if (const auto precision = object.optional("precision"))
    options.precision = static_cast<Precision>(precision->choice(kPrecisionNames));
  if (const auto gradients = object.optional("streamGradients"))
    options.streamGradients = gradients->choice(kStreamGradientNames) == 0 ? Precision::Float32 : Precision::Bfloat16;
  if (const auto poison = object.optional("poison")) options.poison = poison->boolean();
  object.finish();
  return options;
}

std::unique_ptr<Backend> makeBackend(const DeviceOptions& options) {
  const bool narrow = options.precision == Precision::Bfloat16;
  const Precision gradients = options.streamGradients.value_or(narrow ? Precision::Bfloat16 : Precision::Float32);
  if (gradients == Precision::Bfloat16 && !narrow)
    throw invalid("streamGradients: 'bfloat16' goes with precision 'bfloat16', and the precision is '" +
                  std::string(kPrecisionNames[static_cast<size_t>(options.precision)]) + "'");
  if (const int number = cudaNumber(options.device); number >= 0) return makeCudaBackend(number, options.precision, gradients);
  if (options.precision != Precision::Float32)
    throw invalid("precision: '" + options.device + "' has 'float32' only; 'tf32' and 'bfloat16' need a CUDA device");
  if (options.device == "reference") return makeReferenceBackend();
  if (options.device == "cpu") return makeCpuBackend(options.threads, options.isa);
  throw invalid("device: expected 'reference', 'cpu', 'cuda' or 'cuda:N', got '" + options.device + "'");
}

uint64_t availableBytes(const std::string& device) {
  const int number = cudaNumber(device);
  return number >= 0 ? cudaFreeBytes(number) : plannableHostBytes();
}

std::vector<Device> listDevices() {
  std::string isas;
  for (const std::string& isa : cpuInstructionSets()) isas += (isas.empty() ? "" : ", ") + isa;
  std::vector<Device> devices = {{"reference", true, "float64, one thread"}, {"cpu", true, "float32, " + isas}};
  const CudaDevices cuda = cudaDevices();
  for (size_t i = 0; i < cuda.devices.size(); ++i) {
    const auto& [description, capability, absence] = cuda.devices[i];
    devices.push_back({"cuda:" + std::to_string(i), absence.empty(), absence.empty() ? description : absence});
  }
  if (cuda.devices.empty()) devices.push_back({"cuda", false, cuda.absence});
  return devices;
}

}  // namespace revnet
