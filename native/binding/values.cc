#include "values.h"

#include <cstring>

namespace revnet {
namespace {

template <class T>
HostArray copy(const void* data, size_t length) {
  const T* from = static_cast<const T*>(data);
  return std::vector<T>(from, from + length);
}

}  // namespace

HostArray readValues(const Reader& reader) {
  constexpr const char* kExpected = "a Float32Array, Float64Array, Int32Array or Uint8Array";
  if (!reader.value().IsTypedArray()) throw reader.expected(kExpected);
  napi_typedarray_type type{};
  size_t length = 0;
  void* data = nullptr;
  const napi_env env = reader.value().Env();
  if (napi_get_typedarray_info(env, reader.value(), &type, &length, &data, nullptr, nullptr) != napi_ok)
    throw reader.expected(kExpected);
  if (data == nullptr) length = 0;  // detached
  switch (type) {
    case napi_float32_array: return copy<float>(data, length);
    case napi_float64_array: return copy<double>(data, length);
    case napi_int32_array: return copy<int32_t>(data, length);
    case napi_uint8_array: return copy<uint8_t>(data, length);
    default: throw reader.expected(std::string(kExpected) + " (not of another element type)");
  }
}

Napi::Value toTypedArray(Napi::Env env, const HostArray& values) {
  return std::visit(
      [&](const auto& data) -> Napi::Value {
        using T = typename std::decay_t<decltype(data)>::value_type;
        auto array = Napi::TypedArrayOf<T>::New(env, data.size());
        if (!data.empty()) std::memcpy(array.Data(), data.data(), data.size() * sizeof(T));
        return array;
      },
      values);
}

}  // namespace revnet
