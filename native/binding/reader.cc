#include "reader.h"

#include <algorithm>
#include <cmath>

#include "errors.h"

namespace revnet {
namespace {

std::string join(const std::string& path, std::string_view name) {
  return path.empty() ? std::string(name) : path + "." + std::string(name);
}

std::string shorten(const std::string& text) { return text.size() > 60 ? text.substr(0, 60) + "..." : text; }

std::string quote(const std::string& text) { return std::string(1, '\'').append(shorten(text)).append(1, '\''); }

// UTF-8 bytes, without making the copy.
size_t stringBytes(Napi::Value value) {
  size_t bytes = 0;
  napi_get_value_string_utf8(value.Env(), value, nullptr, 0, &bytes);
  return bytes;
}

// Runs no JavaScript: the value may be hostile.
std::string describe(Napi::Value value) {
  switch (value.Type()) {
    case napi_undefined: return "undefined";
    case napi_null: return "null";
    case napi_boolean: return value.As<Napi::Boolean>() ? "true" : "false";
    case napi_symbol: return "a symbol";
    case napi_bigint: return "a bigint";
    case napi_function: return "a function";
    case napi_external: return "an external";
    case napi_object: break;
    case napi_string: return stringBytes(value) > kMaxStringBytes ? "a long string" : quote(value.As<Napi::String>());
    case napi_number: {
      const double number = value.As<Napi::Number>();
      if (std::isnan(number)) return "NaN";
      if (std::isinf(number)) return number > 0 ? "Infinity" : "-Infinity";
      char text[32];
      std::snprintf(text, sizeof(text), "%.17g", number);
      return text;
    }
  }
  return value.IsArray() ? "an array" : value.IsTypedArray() ? "a typed array" : "an object";
}

}  // namespace

Error Reader::expected(const std::string& what) const {
  return invalid((path_.empty() ? std::string() : path_ + ": ") + "expected " + what + ", got " + describe(value_));
}

int64_t Reader::integer(int64_t low, int64_t high) const {
  const double number = value_.IsNumber() ? value_.As<Napi::Number>().DoubleValue() : NAN;
  if (!(number >= static_cast<double>(low) && number <= static_cast<double>(high)) || number != std::floor(number))
    throw expected("an integer from " + std::to_string(low) + " to " + std::to_string(high));
  return static_cast<int64_t>(number);
}

double Reader::number() const {
  const double number = value_.IsNumber() ? value_.As<Napi::Number>().DoubleValue() : NAN;
  if (!std::isfinite(number)) throw expected("a finite number");
  return number;
}

bool Reader::boolean() const {
  if (!value_.IsBoolean()) throw expected("true or false");
  return value_.As<Napi::Boolean>();
}

std::string Reader::string() const {
  if (!value_.IsString() || stringBytes(value_) > kMaxStringBytes)
    throw expected("a string of at most " + std::to_string(kMaxStringBytes) + " bytes");
  return value_.As<Napi::String>();
}

size_t Reader::choice(const char* const* names, size_t count) const {
  const std::string name = value_.IsString() && stringBytes(value_) <= kMaxStringBytes ? value_.As<Napi::String>() : std::string();
  std::string all;
  for (size_t i = 0; i < count; ++i) {
    if (name == names[i]) return i;
    all.append(i == 0 ? "" : ", ").append(quote(names[i]));
  }
  throw expected("one of " + all);
}

std::vector<Reader> Reader::list(uint32_t longest) const {
  if (!value_.IsArray()) throw expected("an array");
  const auto array = value_.As<Napi::Array>();
  const uint32_t length = array.Length();
  if (length > longest)
    throw invalid(path_ + ": expected at most " + std::to_string(longest) + " entries, got " + std::to_string(length));
  std::vector<Reader> entries;
  entries.reserve(length);
  for (uint32_t i = 0; i < length; ++i) {
    const std::string path = path_ + "[" + std::to_string(i) + "]";
    try {
      entries.emplace_back(array.Get(i), path);
    } catch (const Napi::Error& error) {
      throw invalid(path + ": cannot be read: " + describeException(error));
    }
  }
  return entries;
}

ObjectReader::ObjectReader(const Reader& reader) : path_(reader.path()) {
  const Napi::Value value = reader.value();
  if (value.Type() != napi_object || value.IsArray() || value.IsTypedArray()) throw reader.expected("an object");
  object_ = value.As<Napi::Object>();
}

Reader ObjectReader::get(const std::string& name) const {
  const std::string path = join(path_, name);
  try {
    return {object_.Get(name), path};
  } catch (const Napi::Error& error) {
    throw invalid(path + ": cannot be read: " + describeException(error));
  }
}

std::optional<Reader> ObjectReader::optional(std::string_view name) {
  known_.emplace_back(name);
  Reader field = get(known_.back());
  if (field.value().IsUndefined()) return std::nullopt;
  return field;
}

Reader ObjectReader::required(std::string_view name) {
  if (std::optional<Reader> field = optional(name)) return *field;
  throw invalid(join(path_, name) + ": missing");
}

void ObjectReader::finish() const {
  Napi::Value names;
  try {
    napi_value result = nullptr;
    const napi_status status = napi_get_all_property_names(
        object_.Env(), object_, napi_key_own_only, static_cast<napi_key_filter>(napi_key_enumerable | napi_key_skip_symbols),
        napi_key_numbers_to_strings, &result);
    if (status != napi_ok) throw Napi::Error::New(object_.Env());
    names = Napi::Value(object_.Env(), result);
  } catch (const Napi::Error& error) {
    throw invalid((path_.empty() ? "argument" : path_) + ": its fields cannot be listed: " + describeException(error));
  }
  const auto list = names.As<Napi::Array>();
  for (uint32_t i = 0; i < list.Length(); ++i) {
    const Napi::Value key = list[i];
    const std::string name = stringBytes(key) > kMaxStringBytes ? "(a long name)" : std::string(key.As<Napi::String>());
    if (std::find(known_.begin(), known_.end(), name) != known_.end() || get(name).value().IsUndefined()) continue;
    std::string known;
    for (const std::string& each : known_) known.append(known.empty() ? "" : ", ").append(each);
    throw invalid(join(path_, shorten(name)) + ": unknown field; expected " + known);
  }
}

}  // namespace revnet
