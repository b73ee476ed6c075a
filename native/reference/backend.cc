// The reference backend: float64, one thread, plain loops. What the ops compute is defined in the files beside this one
// (run.h lists them); the other backends are tested against it. Scratch comes from the heap, so no op asks for workspace.
#include "core/backend.h"

#include <cstring>

#include "core/host_memory.h"
#include "run.h"

namespace revnet {
namespace reference {
namespace {

class ReferenceReplay final : public Replay {
 public:
  ReferenceReplay(const std::vector<Op>& ops, const Memory& memory) : ops_(ops), memory_(memory) {}

  void run(const std::atomic<bool>& cancelled) override {
    const Context context(memory_, cancelled);
    try {
      for (const Op& op : ops_) {
        context.checkCancelled();
        std::visit([&](const auto& record) { reference::run(context, record); }, op);
      }
    } catch (const Cancelled&) {
    }
  }

 private:
  const std::vector<Op>& ops_;
  const Memory& memory_;
};

class ReferenceBackend final : public Backend {
 public:
  std::string description() const override { return "reference: float64, 1 thread"; }
  int fractionBits() const override { return kFractionBits; }
  size_t elementBytes(ElementType type) const override {
    switch (type) {
      case ElementType::Real:
      case ElementType::Hidden:
      case ElementType::Gradient: return sizeof(double);
      case ElementType::Fixed: return sizeof(int64_t);
      case ElementType::Index: return sizeof(int32_t);
      case ElementType::Byte: break;
    }
    return sizeof(uint8_t);
  }

  void* allocate(size_t bytes) override { return allocateHost(bytes); }
  void* allocateZeros(size_t bytes) override { return allocateHostZeros(bytes); }
  void settle(void* memory) noexcept override { settleHost(memory); }
  void release(void* memory) noexcept override { releaseHost(memory); }
  void upload(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void download(void* to, const void* from, size_t bytes) override { std::memcpy(to, from, bytes); }
  void fill(void* to, std::byte value, size_t bytes) override { std::memset(to, std::to_integer<int>(value), bytes); }

  size_t workspaceBytes(const Op&) const override { return 0; }
  std::unique_ptr<Replay> record(const std::vector<Op>& ops, const Memory& memory) override {
    return std::make_unique<ReferenceReplay>(ops, memory);
  }
};

}  // namespace
}  // namespace reference

std::unique_ptr<Backend> makeReferenceBackend() { return std::make_unique<reference::ReferenceBackend>(); }

}  // namespace revnet
