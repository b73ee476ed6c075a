// The one exception type of the native code. Whatever goes wrong below Node-API is thrown as an Error, carried across the
// step thread if need be, and becomes a RevNetError with the same code in JavaScript.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>

namespace revnet {

class Error : public std::runtime_error {
 public:
  // `code` is one of the ERR_* strings of docs/errors.md.
  Error(std::string code, const std::string& message) : std::runtime_error(message), code_(std::move(code)) {}
  const std::string& code() const noexcept { return code_; }

 private:
  std::string code_;
};

// "1.50 GiB", or in MiB below one.
std::string readableBytes(uint64_t bytes);

// A record or argument that does not make sense: what was wrong and what was expected.
inline Error invalid(const std::string& message) { return Error("ERR_INVALID_ARGUMENT", message); }

}  // namespace revnet
