// Numbers as JavaScript has them, and their way to and from a backend's machine types.
#pragma once

#include <cstdint>
#include <functional>
#include <variant>
#include <vector>

#include "backend.h"

namespace revnet {

// Numbers on their way to or from JavaScript. A `real` buffer takes float or double and gives the backend's own; a `fixed`
// one takes and gives doubles in the stream's units (exact: neither needs more than 53 bits).
using HostArray = std::variant<std::vector<float>, std::vector<double>, std::vector<int32_t>, std::vector<uint8_t>>;

// Calls take(data, bytes) with the values as the buffer holds them. Throws ERR_INVALID_ARGUMENT for values that do not fit it.
void toMachine(const Backend& backend, const BufferSpec& spec, const HostArray& values,
               const std::function<void(const void* data, size_t bytes)>& take);
// The values of a buffer, whose machine bytes get(to, bytes) writes.
HostArray fromMachine(const Backend& backend, const BufferSpec& spec, const std::function<void(void* to, size_t bytes)>& get);

}  // namespace revnet
