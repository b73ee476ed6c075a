// The addon's exports, as binding.d.ts declares them.
#include <napi.h>

#include "core/file_lock.h"
#include "core/philox.h"
#include "cpu/backend.h"
#include "cuda/devices.h"
#include "devices.h"
#include "errors.h"
#include "op_reader.h"
#include "session_object.h"

namespace revnet {
namespace {

constexpr int64_t kMaxDraws = int64_t{1} << 26;  // 256 MiB

// What a session with these buffers would report, from the same plan.
Napi::Value plan(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::unique_ptr<Backend> backend = makeBackend(readDeviceOptions(Reader(info[0], "options")));
    std::vector<BufferSpec> table = readBuffers(Reader(info[1], "buffers"));
    ProgramRecord program = readProgram(Reader(info[2], ""));
    MemoryReport report;
    for (size_t id = 0; id < table.size(); ++id) {
      checkBuffer(table, id);
      if (table[id].parent >= 0) continue;
      report.categories[static_cast<size_t>(table[id].category)] +=
          alignUp(static_cast<size_t>(table[id].elements) * backend->elementBytes(table[id].type));
    }
    const size_t firstLocal = table.size();
    table.insert(table.end(), program.locals.begin(), program.locals.end());
    const Plan plan = planProgram(table, firstLocal, program.ops, *backend);
    report.categories[static_cast<size_t>(Category::Activations)] += plan.arenaBytes;
    report.categories[static_cast<size_t>(Category::Parameters)] += plan.preparedBytes;
    report.workspace = plan.workspaceBytes;
    Napi::Object result = toJsReport(info.Env(), report);
    result.Set("live", Napi::Number::New(info.Env(), static_cast<double>(plan.liveBytes)));
    return result;
  });
}

Napi::Value devices(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    auto list = Napi::Array::New(info.Env());
    for (const Device& device : listDevices()) {
      auto object = Napi::Object::New(info.Env());
      object.Set("name", device.name);
      object.Set("available", device.available);
      object.Set("description", device.description);
      list.Set(list.Length(), object);
    }
    return list;
  });
}

Napi::Value availableMemory(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const std::string device = Reader(info[0], "device").string();
    return Napi::Number::New(info.Env(), static_cast<double>(availableBytes(device)));
  });
}

Napi::Value tryLock(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const auto descriptor = Reader(info[0], "descriptor").integer(0, std::numeric_limits<int32_t>::max());
    const FileLock lock = lockFile(static_cast<int>(descriptor));
    if (lock == FileLock::Unsupported) return info.Env().Null();
    return Napi::Boolean::New(info.Env(), lock == FileLock::Locked);
  });
}

Napi::Value buildInfo(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] {
    const Napi::Env env = info.Env();
    auto object = Napi::Object::New(env);
    object.Set("version", REVNET_VERSION);
    object.Set("compiler", REVNET_COMPILER);
    const CudaBuild cuda = cudaBuild();
    const auto orNull = [&](const std::string& text) {
      return text.empty() ? env.Null() : Napi::Value(Napi::String::New(env, text));
    };
    object.Set("cuda", orNull(cuda.version));
    auto architectures = Napi::Array::New(env);
    for (const std::string& architecture : cuda.architectures) architectures.Set(architectures.Length(), architecture);
    object.Set("cudaArchitectures", architectures);
    object.Set("cudaDriver", orNull(cuda.driver));
    auto isas = Napi::Array::New(env);
    for (const std::string& isa : cpuInstructionSets()) isas.Set(isas.Length(), isa);
    object.Set("isas", isas);
    object.Set("napiVersion", NAPI_VERSION);
    return object;
  });
}

Napi::Value philoxDraws(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const uint64_t seed = readSeed(Reader(info[0], "seed"));
    const auto word = [&](size_t i, const char* name) {
      return static_cast<uint32_t>(Reader(info[i], name).integer(0, std::numeric_limits<uint32_t>::max()));
    };
    const uint32_t streamLow = word(1, "streamLow"), streamHigh = word(2, "streamHigh");
    // In the order of RandomPurpose, which starts at 1.
    constexpr const char* kPurposes[] = {"initialization", "shuffle", "augmentation", "dataset"};
    const auto purpose = static_cast<RandomPurpose>(Reader(info[3], "purpose").choice(kPurposes) + 1);
    const bool given = info[4].IsTypedArray() && info[4].As<Napi::TypedArray>().TypedArrayType() == napi_uint32_array;
    auto draws = given ? info[4].As<Napi::Uint32Array>()
                       : Napi::Uint32Array::New(info.Env(), static_cast<size_t>(Reader(info[4], "words").integer(0, kMaxDraws)));
    const size_t count = draws.ElementLength();  // 0 for a detached array
    PhiloxBlock block{};
    for (size_t i = 0; i < count; ++i) {
      if (i % 4 == 0)
        block = philox(static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32), static_cast<uint32_t>(i / 4), streamLow,
                       streamHigh, purpose);
      draws[i] = block.value[i % 4];
    }
    return draws;
  });
}

// The same values as Session.initialize gives a buffer, into an array of the caller's.
Napi::Value initialValues(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&]() -> Napi::Value {
    const uint64_t seed = readSeed(Reader(info[0], "seed"));
    const std::vector<InitialTensor> tensors = readInitialTensors(Reader(info[1], "tensors"));
    // Reading the tensors may have run JavaScript: what the array is, is asked afterwards.
    const Reader target(info[2], "values");
    const auto type = info[2].IsTypedArray() ? info[2].As<Napi::TypedArray>().TypedArrayType() : napi_int8_array;
    const auto fill = [&](auto array) {
      checkInitialTensors(tensors, static_cast<int64_t>(array.ElementLength()));
      drawInitial(seed, tensors, array.Data(), false);
    };
    if (type == napi_float32_array)
      fill(info[2].As<Napi::Float32Array>());
    else if (type == napi_float64_array)
      fill(info[2].As<Napi::Float64Array>());
    else
      throw target.expected("a Float32Array or Float64Array");
    return info[2];
  });
}

Napi::Object initialize(Napi::Env env, Napi::Object exports) {
  exports.Set("Session", SessionObject::define(env));
  exports.Set("plan", Napi::Function::New(env, plan, "plan"));
  exports.Set("devices", Napi::Function::New(env, devices, "devices"));
  exports.Set("initialValues", Napi::Function::New(env, initialValues, "initialValues"));
  exports.Set("availableMemory", Napi::Function::New(env, availableMemory, "availableMemory"));
  exports.Set("tryLock", Napi::Function::New(env, tryLock, "tryLock"));
  exports.Set("buildInfo", Napi::Function::New(env, buildInfo, "buildInfo"));
  exports.Set("philox", Napi::Function::New(env, philoxDraws, "philox"));
  return exports;
}

}  // namespace
}  // namespace revnet

using revnet::initialize;
NODE_API_MODULE(revnet, initialize)
