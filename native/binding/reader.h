// Reads plain JavaScript objects field by field. What it is given may be anything (proxies, throwing getters, detached
// buffers): every failure is an Error ERR_INVALID_ARGUMENT that starts with the path of the field, as in `ops[3].f[0].weight`.
#pragma once

#include <napi.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/error.h"

namespace revnet {

// The longest string, and the longest list of operands or layers, that a record may hold.
constexpr size_t kMaxStringBytes = 4096;
constexpr uint32_t kMaxRecordList = 64;
constexpr int64_t kMaxSafeInteger = (int64_t{1} << 53) - 1;

// A value and where it was found.
class Reader {
 public:
  Reader(Napi::Value value, std::string path) : value_(value), path_(std::move(path)) {}

  Napi::Value value() const { return value_; }
  const std::string& path() const { return path_; }
  Error expected(const std::string& what) const;  // "path: expected <what>, got <the value>"

  int64_t integer(int64_t low, int64_t high) const;
  double number() const;  // finite
  bool boolean() const;
  std::string string() const;
  // The index in `names` of the string that the value must be.
  template <size_t N>
  size_t choice(const char* const (&names)[N]) const {
    return choice(names, N);
  }
  // The elements of an array of at most `longest`. Copied out before any is read: reading may run JavaScript that changes it.
  std::vector<Reader> list(uint32_t longest) const;

 private:
  size_t choice(const char* const* names, size_t count) const;

  Napi::Value value_;
  std::string path_;
};

// An object of which every field is known: finish() refuses those that nobody asked for. A field that is undefined is absent.
class ObjectReader {
 public:
  explicit ObjectReader(const Reader& reader);

  const std::string& path() const { return path_; }
  std::optional<Reader> optional(std::string_view name);
  Reader required(std::string_view name);
  void finish() const;

 private:
  Reader get(const std::string& name) const;

  Napi::Object object_;
  std::string path_;
  std::vector<std::string> known_;
};

}  // namespace revnet
