// Typed arrays in and out.
#pragma once

#include <napi.h>

#include "core/session.h"
#include "reader.h"

namespace revnet {

// Copies a Float32Array, Float64Array, Int32Array or Uint8Array, so that JavaScript may change it afterwards. A detached one is
// empty. Memory shared with other threads is copied as it is at that moment.
HostArray readValues(const Reader& reader);

// The typed array of the same kind, with memory of its own.
Napi::Value toTypedArray(Napi::Env env, const HostArray& values);

}  // namespace revnet
