#include "errors.h"

#include <new>

#include "core/error.h"

namespace revnet {
namespace {

Napi::Error withCode(Napi::Env env, const std::string& code, const std::string& message) {
  Napi::Error error = Napi::Error::New(env, message);
  error.Set("code", Napi::String::New(env, code));
  return error;
}

}  // namespace

Napi::Error toJsError(Napi::Env env, const std::exception_ptr& failure) {
  try {
    std::rethrow_exception(failure);
  } catch (const Error& error) {
    return withCode(env, error.code(), error.what());
  } catch (const std::bad_alloc&) {
    return withCode(env, "ERR_OUT_OF_MEMORY", "there is not enough memory");
  } catch (const std::exception& error) {
    return withCode(env, "ERR_INTERNAL", std::string("unexpected native exception: ") + error.what());
  } catch (...) {
    return withCode(env, "ERR_INTERNAL", "unexpected native exception");
  }
}

std::string describeException(const Napi::Error& error) {
  try {
    const std::string message = error.Message();
    return message.empty() ? "an exception without a message" : message;
  } catch (const Napi::Error&) {
    return "an exception that cannot be read";
  }
}

}  // namespace revnet
