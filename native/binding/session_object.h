// The Session class of binding.d.ts: one step thread and the promises of its jobs.
//
// Lifetimes. The step thread, its runner and the thread-safe function that carries results to JavaScript live together in a
// Channel. The thread's last act is to release the function; the function's finalizer, on the JavaScript thread, joins the
// thread and deletes the Channel. While promises are pending the function keeps the event loop alive and the JavaScript object
// refers to itself; an idle session does neither, so it can be collected, and a process with nothing else to do ends.
// When the environment is torn down (exit, end of a worker) a hook stops and joins the thread first.
#pragma once

#include <napi.h>

#include <array>
#include <memory>
#include <string>

#include "core/session.h"
#include "step_runner.h"

namespace revnet {

class SessionObject : public Napi::ObjectWrap<SessionObject> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit SessionObject(const Napi::CallbackInfo& info);
  ~SessionObject() override;

 private:
  struct Outcome;
  struct Channel;
  using ToJs = Napi::Value (*)(Napi::Env, const std::vector<HostArray>&);
  using Body = Napi::Value (SessionObject::*)(const Napi::CallbackInfo&);

  // How each method is called: with C++ exceptions turned into JavaScript's. (That `this` is a Session, V8 has checked.)
  template <Body body>
  Napi::Value call(const Napi::CallbackInfo& info);
  // The same for methods that return a promise: it is rejected instead.
  template <Body body>
  Napi::Value callAsync(const Napi::CallbackInfo& info);

  Napi::Value description(const Napi::CallbackInfo& info);
  Napi::Value elementBytes(const Napi::CallbackInfo& info);
  Napi::Value addBuffer(const Napi::CallbackInfo& info);
  Napi::Value addProgram(const Napi::CallbackInfo& info);
  Napi::Value run(const Napi::CallbackInfo& info);
  Napi::Value read(const Napi::CallbackInfo& info);
  Napi::Value write(const Napi::CallbackInfo& info);
  Napi::Value initialize(const Napi::CallbackInfo& info);
  Napi::Value allocated(const Napi::CallbackInfo& info);
  Napi::Value planned(const Napi::CallbackInfo& info);
  Napi::Value dispose(const Napi::CallbackInfo& info);

  Napi::Promise post(Napi::Env env, StepRunner::Work work, ToJs toJs);
  void openChannel(Napi::Env env);
  void settled(Napi::Env env);
  static void deliver(Napi::Env env, Napi::Function, Channel*, Outcome* outcome);

  std::string description_;
  std::array<size_t, kElementTypes> elementBytes_{};
  std::shared_ptr<StepRunner> runner_;
  Channel* channel_ = nullptr;  // null until the first job; lives at least as long as promises are pending
  size_t pending_ = 0;
};

Napi::Object toJsReport(Napi::Env env, const MemoryReport& report);

}  // namespace revnet
