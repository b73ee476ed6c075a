// What the native tests are written with: TEST defines and registers one, the CHECK macros fail it.
#pragma once

#include <functional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/error.h"

namespace revnet::test {

struct Test {
  const char* name;
  std::function<void()> body;
};
std::vector<Test>& tests();

struct Registration {
  Registration(const char* name, std::function<void()> body) { tests().push_back({name, std::move(body)}); }
};

[[noreturn]] inline void fail(const char* file, int line, const std::string& what) {
  throw std::logic_error(std::string(file) + ":" + std::to_string(line) + ": " + what);
}

template <class A, class B>
void checkEqual(const char* file, int line, const char* text, const A& a, const B& b) {
  if (a == b) return;
  std::ostringstream what;
  what << text << ": " << a << " is not " << b;
  fail(file, line, what.str());
}

template <class Body>
void checkThrows(const char* file, int line, const std::string& code, const std::string& part, Body body) {
  try {
    body();
  } catch (const Error& error) {
    const std::string message = error.what();
    if (error.code() != code || message.find(part) == std::string::npos)
      fail(file, line, "threw " + error.code() + " '" + message + "', expected " + code + " with '" + part + "'");
    return;
  }
  fail(file, line, "did not throw " + code);
}

}  // namespace revnet::test

#define TEST(name)                                                       \
  static void name();                                                    \
  static const revnet::test::Registration name##Registered(#name, name); \
  static void name()

#define CHECK(condition) \
  if (!(condition)) revnet::test::fail(__FILE__, __LINE__, #condition)
#define CHECK_EQUAL(a, b) revnet::test::checkEqual(__FILE__, __LINE__, #a " == " #b, a, b)
#define CHECK_THROWS(code, part, ...) revnet::test::checkThrows(__FILE__, __LINE__, code, part, [&] { __VA_ARGS__; })
