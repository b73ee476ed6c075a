// The state behind the runtime calls. Everything is guarded by one lock, which whoever runs device work holds too.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "emulation/block.h"
#include "emulation/memory.h"
#include "emulation/runtime_api.h"

namespace revnet::emulation {

// Of a block. A device of compute capability 9.0 has more; this is all that 8.6, 8.9 and 12.0 have.
constexpr size_t kMaxSharedBytes = 99 << 10;

// Something that a stream or a graph does: a launch, or anything else.
struct Node {
  std::function<void()> run;
  std::shared_ptr<const Launch> launch;
};

struct Work {
  Node node;
  uint64_t number = 0;  // in the order in which the process enqueued
};

struct Capture;

}  // namespace revnet::emulation

struct CUstream_st {
  int device = 0;
  bool blocking = true;  // ordered with the legacy default stream
  std::deque<revnet::emulation::Work> pending;
  std::shared_ptr<revnet::emulation::Capture> capture;
};

struct CUevent_st {
  CUstream_st* stream = nullptr;  // of the latest record
  uint64_t recorded = 0;          // the number of that record; 0: none
  uint64_t completed = 0;
  double milliseconds = 0;  // when it completed
  bool timed = true;
  bool blocking = false;                              // whoever waits for it sleeps
  std::weak_ptr<revnet::emulation::Capture> capture;  // recorded while capturing
};

struct CUgraph_st {
  std::vector<revnet::emulation::Node> nodes;
};

struct CUgraphExec_st {
  std::shared_ptr<const std::vector<revnet::emulation::Node>> nodes;
};

namespace revnet::emulation {

struct Capture {
  CUstream_st* origin = nullptr;
  std::thread::id thread;
  cudaStreamCaptureMode mode = cudaStreamCaptureModeGlobal;
  bool valid = true;
  std::set<CUstream_st*> unjoined;  // other streams that have captured work which the origin does not wait for
  std::vector<revnet::emulation::Node> nodes;
};

struct Device {
  size_t limit = 0, used = 0;
  std::map<std::byte*, std::unique_ptr<GuardedMemory>> memory;
  CUstream_st defaultStream;
};

struct Configuration {
  uint64_t seed;
  int driver;                // the newest CUDA that it knows; 0: there is none
  uint64_t devices, memory;  // bytes of each

  static Configuration ofEnvironment();
};

class Runtime {
 public:
  static Runtime& get();

  std::recursive_mutex lock;
  Random random;
  uint64_t seed = 0;
  int driver = CUDART_VERSION;
  std::vector<std::unique_ptr<Device>> devices;
  std::set<CUstream_st*> streams;  // without the default streams
  std::set<CUevent_st*> events;
  std::set<CUgraph_st*> graphs;
  std::set<CUgraphExec_st*> executables;
  std::vector<std::weak_ptr<Capture>> captures;
  std::map<std::byte*, std::unique_ptr<GuardedMemory>> pinned;
  std::map<const void*, size_t> sharedBytes;  // that a kernel has asked for
  uint64_t numbers = 0;
  uint64_t copies = 0;  // calls that copy
  uint64_t spins = 0;   // calls in which a thread of a real device would spin until work is done
  std::string fault;    // of the device; every call fails from then on, until cudaDeviceReset

  // With nothing allocated, nothing enqueued, and no fault.
  void restart(const Configuration& configuration);
  void configure() { restart(Configuration::ofEnvironment()); }
  void setFault(const std::string& what);

  bool isPinned(const void* address, size_t bytes) const;
  GuardedMemory* findDeviceMemory(const void* address, size_t bytes, Device** owner = nullptr) const;

  // Runs what the stream has to do up to the work of that number, and what that waits for.
  void runStream(CUstream_st& stream, uint64_t upTo = UINT64_MAX);
  // Everything, the streams in random turns.
  void runAll();
  // One thing that is ready to run, of any stream.
  void runOne();
  cudaError_t enqueue(cudaStream_t stream, Node node, uint64_t* number = nullptr);
  cudaError_t enqueue(cudaStream_t stream, std::function<void()> run, uint64_t* number = nullptr) {
    return enqueue(stream, Node{std::move(run), nullptr}, number);
  }
  // `next`: what follows in the stream or graph, or null.
  void runNode(const Node& node, const Node* next);
  // The stream that the handle stands for; null if there is none.
  CUstream_st* find(cudaStream_t stream);

 private:
  Runtime() { configure(); }
  void runFront(CUstream_st& stream);
};

// What a runtime call begins with: the lock, and the errors that every call returns.
class Call {
 public:
  // `unsafe`: what may not happen while a stream captures: calls that synchronise or allocate.
  explicit Call(bool unsafe = false);
  cudaError_t status() const { return status_; }

 private:
  std::lock_guard<std::recursive_mutex> guard_;
  cudaError_t status_ = cudaSuccess;
};

// Remembers an error for cudaGetLastError.
cudaError_t report(cudaError_t error);
Device& currentDevice();
int currentDeviceNumber();

}  // namespace revnet::emulation
