// Between C++ exceptions and JavaScript errors.
#pragma once

#include <napi.h>

#include <exception>
#include <string>

namespace revnet {

// A JavaScript Error with a `code` for whatever was thrown: Error keeps its own, lack of memory is ERR_OUT_OF_MEMORY, all
// else ERR_INTERNAL. Throws Napi::Error only where the environment is being torn down.
Napi::Error toJsError(Napi::Env env, const std::exception_ptr& failure);

// What a JavaScript exception says, in one line: getters and traps of arguments may throw anything.
std::string describeException(const Napi::Error& error);

// Runs the body of a call from JavaScript. Only Napi::Error leaves it, which node-addon-api throws into JavaScript.
template <class Body>
auto guarded(Napi::Env env, Body body) {
  try {
    return body();
  } catch (const Napi::Error&) {
    throw;
  } catch (...) {
    throw toJsError(env, std::current_exception());
  }
}

}  // namespace revnet
