#include "session_object.h"

#include <limits>
#include <utility>

#include "devices.h"
#include "errors.h"
#include "op_reader.h"
#include "values.h"

namespace revnet {
namespace {

constexpr uint32_t kMaxTransfers = 1 << 16;

int64_t readId(const Napi::CallbackInfo& info, const char* name) {
  return Reader(info[0], name).integer(0, std::numeric_limits<int32_t>::max());
}

// An element's number in a buffer, or how many; `otherwise` where none is given.
int64_t readCount(const Napi::Value& value, const char* name, int64_t otherwise) {
  return value.IsUndefined() ? otherwise : Reader(value, name).integer(0, kMaxSafeInteger);
}

Napi::Value toNothing(Napi::Env env, const std::vector<HostArray>&) { return env.Undefined(); }
Napi::Value toSingle(Napi::Env env, const std::vector<HostArray>& results) { return toTypedArray(env, results.front()); }
Napi::Value toList(Napi::Env env, const std::vector<HostArray>& results) {
  auto list = Napi::Array::New(env, results.size());
  for (uint32_t i = 0; i < results.size(); ++i) list.Set(i, toTypedArray(env, results[i]));
  return list;
}

}  // namespace

// A finished job on its way to JavaScript.
struct SessionObject::Outcome {
  SessionObject* session;  // alive as long as its promises are pending
  Napi::Promise::Deferred deferred;
  ToJs toJs;
  std::vector<HostArray> results;
  std::exception_ptr failure;
};

struct SessionObject::Channel {
  using Function = Napi::TypedThreadSafeFunction<Channel, Outcome, &SessionObject::deliver>;

  std::shared_ptr<StepRunner> runner;
  Function function;
  bool tornDown = false;  // the environment is going, and has called its hook

  static void tearDown(void* channel) {
    auto* self = static_cast<Channel*>(channel);
    self->tornDown = true;
    self->runner->stop();
    self->runner->join();
  }
  static void finalize(Napi::Env env, void*, Channel* self) {
    if (!self->tornDown) napi_remove_env_cleanup_hook(env, tearDown, self);
    self->runner->join();
    delete self;
  }
};

SessionObject::SessionObject(const Napi::CallbackInfo& info) : ObjectWrap(info) {
  guarded(info.Env(), [&] {
    const DeviceOptions options = readDeviceOptions(Reader(info[0], "options"));
    auto session = std::make_unique<Session>(makeBackend(options), options.poison);
    description_ = session->backend().description();
    for (size_t type = 0; type < elementBytes_.size(); ++type)
      elementBytes_[type] = session->backend().elementBytes(static_cast<ElementType>(type));
    runner_ = std::make_shared<StepRunner>(std::move(session));
  });
}

SessionObject::~SessionObject() {
  if (runner_) runner_->stop();
}

Napi::Function SessionObject::define(Napi::Env env) {
  return DefineClass(env, "Session",
                     {
                         InstanceAccessor<&SessionObject::call<&SessionObject::description>>("description"),
                         InstanceMethod<&SessionObject::call<&SessionObject::elementBytes>>("elementBytes"),
                         InstanceMethod<&SessionObject::call<&SessionObject::addBuffer>>("addBuffer"),
                         InstanceMethod<&SessionObject::call<&SessionObject::addProgram>>("addProgram"),
                         InstanceMethod<&SessionObject::callAsync<&SessionObject::run>>("run"),
                         InstanceMethod<&SessionObject::callAsync<&SessionObject::read>>("read"),
                         InstanceMethod<&SessionObject::callAsync<&SessionObject::write>>("write"),
                         InstanceMethod<&SessionObject::callAsync<&SessionObject::initialize>>("initialize"),
                         InstanceMethod<&SessionObject::call<&SessionObject::allocated>>("allocated"),
                         InstanceMethod<&SessionObject::call<&SessionObject::planned>>("planned"),
                         InstanceMethod<&SessionObject::call<&SessionObject::dispose>>("dispose"),
                     });
}

template <SessionObject::Body body>
Napi::Value SessionObject::call(const Napi::CallbackInfo& info) {
  return guarded(info.Env(), [&] { return (this->*body)(info); });
}

template <SessionObject::Body body>
Napi::Value SessionObject::callAsync(const Napi::CallbackInfo& info) {
  try {
    return call<body>(info);
  } catch (const Napi::Error& error) {
    const auto deferred = Napi::Promise::Deferred::New(info.Env());
    deferred.Reject(error.Value());
    return deferred.Promise();
  }
}

Napi::Value SessionObject::description(const Napi::CallbackInfo& info) { return Napi::String::New(info.Env(), description_); }

Napi::Value SessionObject::elementBytes(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), static_cast<double>(elementBytes_[Reader(info[0], "type").choice(kElementTypeNames)]));
}

Napi::Value SessionObject::addBuffer(const Napi::CallbackInfo& info) {
  const BufferSpec buffer = readBuffer(Reader(info[0], "buffer"));
  const size_t id = runner_->withSession([&](Session& session) { return session.addBuffer(buffer); });
  return Napi::Number::New(info.Env(), static_cast<double>(id));
}

Napi::Value SessionObject::addProgram(const Napi::CallbackInfo& info) {
  ProgramRecord program = readProgram(Reader(info[0], ""));
  const size_t id =
      runner_->withSession([&](Session& session) { return session.addProgram(program.locals, std::move(program.ops)); });
  return Napi::Number::New(info.Env(), static_cast<double>(id));
}

Napi::Value SessionObject::run(const Napi::CallbackInfo& info) {
  const auto program = static_cast<size_t>(readId(info, "program"));
  std::vector<Session::Input> inputs;
  for (const Reader& entry : Reader(info[1], "inputs").list(kMaxTransfers)) {
    const std::vector<Reader> pair = entry.list(2);
    if (pair.size() != 2) throw entry.expected("a pair of a buffer and its values");
    const auto id = static_cast<size_t>(pair[0].integer(0, std::numeric_limits<int32_t>::max()));
    inputs.push_back({id, readValues(pair[1])});
  }
  std::vector<size_t> outputs;
  for (const Reader& entry : Reader(info[2], "outputs").list(kMaxTransfers))
    outputs.push_back(static_cast<size_t>(entry.integer(0, std::numeric_limits<int32_t>::max())));
  return post(
      info.Env(),
      [program, inputs = std::move(inputs), outputs = std::move(outputs)](Session& session, const std::atomic<bool>& cancelled) {
        return session.start(program, inputs, outputs, cancelled);
      },
      toList);
}

Napi::Value SessionObject::read(const Napi::CallbackInfo& info) {
  const auto id = static_cast<size_t>(readId(info, "buffer"));
  const Part part{readCount(info[1], "first", 0), readCount(info[2], "elements", -1)};
  return post(
      info.Env(),
      [id, part](Session& session, const std::atomic<bool>&) {
        std::vector<HostArray> results;
        results.push_back(session.read(id, part));
        return readyResults(std::move(results));
      },
      toSingle);
}

Napi::Value SessionObject::write(const Napi::CallbackInfo& info) {
  const auto id = static_cast<size_t>(readId(info, "buffer"));
  const bool whole = info[2].IsUndefined();
  const int64_t first = readCount(info[2], "first", 0);
  return post(
      info.Env(),
      [id, whole, first, values = readValues(Reader(info[1], "values"))](Session& session, const std::atomic<bool>&) {
        const auto count = static_cast<int64_t>(std::visit([](const auto& v) { return v.size(); }, values));
        session.write(id, values, {first, whole ? -1 : count});
        return readyResults({});
      },
      toNothing);
}

Napi::Value SessionObject::initialize(const Napi::CallbackInfo& info) {
  const auto id = static_cast<size_t>(readId(info, "buffer"));
  return post(
      info.Env(),
      [id, seed = readSeed(Reader(info[1], "seed")), tensors = readInitialTensors(Reader(info[2], "tensors"))](
          Session& session, const std::atomic<bool>& cancelled) {
        session.initialize(id, seed, tensors, cancelled);
        return readyResults({});
      },
      toNothing);
}

Napi::Value SessionObject::allocated(const Napi::CallbackInfo& info) { return toJsReport(info.Env(), runner_->allocated()); }

Napi::Value SessionObject::planned(const Napi::CallbackInfo& info) {
  return toJsReport(info.Env(), runner_->planned(static_cast<size_t>(readId(info, "program"))));
}

Napi::Value SessionObject::dispose(const Napi::CallbackInfo& info) {
  runner_->stop();
  return info.Env().Undefined();
}

void SessionObject::openChannel(Napi::Env env) {
  auto channel = std::make_unique<Channel>();
  channel->runner = runner_;
  channel->function = Channel::Function::New(env, "revnet.Session", 0, 1, channel.get(), &Channel::finalize);
  channel_ = channel.release();
  channel_->function.Unref(env);
  runner_->onExit([function = channel_->function]() mutable { function.Release(); });
  // Hooks are called last in, first out: this one comes before the function's own, so its thread never calls a dead function.
  napi_add_env_cleanup_hook(env, Channel::tearDown, channel_);
}

Napi::Promise SessionObject::post(Napi::Env env, StepRunner::Work work, ToJs toJs) {
  runner_->requireActive();
  const auto deferred = Napi::Promise::Deferred::New(env);
  if (!channel_) openChannel(env);
  runner_->post(std::move(work), [this, function = channel_->function, deferred, toJs](std::vector<HostArray> results,
                                                                                       const std::exception_ptr& failure) {
    auto outcome = std::make_unique<Outcome>(Outcome{this, deferred, toJs, std::move(results), failure});
    if (function.NonBlockingCall(outcome.get()) == napi_ok) outcome.release();
  });
  if (pending_++ == 0) {
    channel_->function.Ref(env);
    Ref();
  }
  return deferred.Promise();
}

// A promise was settled; `this` may be gone afterwards.
void SessionObject::settled(Napi::Env env) {
  if (--pending_ > 0) return;
  channel_->function.Unref(env);
  Unref();
}

// On the JavaScript thread. Without an environment (it is being torn down) there is nobody to tell.
void SessionObject::deliver(Napi::Env env, Napi::Function, Channel*, Outcome* raw) {
  const std::unique_ptr<Outcome> outcome(raw);
  if (env == nullptr) return;
  // A worker that is being terminated takes no results: then each of these throws.
  const auto attempt = [](const auto& action) {
    try {
      action();
      return true;
    } catch (...) {
      return false;
    }
  };
  attempt([&] {
    // Results may be too large for JavaScript: that is a failure like any other.
    if (!outcome->failure && !attempt([&] { outcome->deferred.Resolve(outcome->toJs(env, outcome->results)); }))
      outcome->failure = std::make_exception_ptr(Error("ERR_OUT_OF_MEMORY", "the results do not fit into JavaScript arrays"));
    if (outcome->failure) outcome->deferred.Reject(toJsError(env, outcome->failure).Value());
  });
  attempt([&] { outcome->session->settled(env); });
}

Napi::Object toJsReport(Napi::Env env, const MemoryReport& report) {
  auto object = Napi::Object::New(env);
  const auto set = [&](const char* name, size_t bytes) { object.Set(name, Napi::Number::New(env, static_cast<double>(bytes))); };
  for (size_t i = 0; i < report.categories.size(); ++i) set(kCategoryNames[i], report.categories[i]);
  set("workspace", report.workspace);
  set("total", report.total());
  return object;
}

}  // namespace revnet
