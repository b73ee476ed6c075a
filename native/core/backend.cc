#include "backend.h"

namespace revnet {
namespace {

// A copy that was made when it was asked for.
class HeldDownload final : public Download {
 public:
  explicit HeldDownload(size_t bytes) : bytes_(bytes) {}
  std::byte* data() { return bytes_.data(); }
  bool ready() override { return true; }
  const std::byte* wait() override { return bytes_.data(); }

 private:
  std::vector<std::byte> bytes_;
};

}  // namespace

void* Backend::allocateZeros(size_t bytes) {
  void* memory = allocate(bytes);
  try {
    fill(memory, std::byte{0}, bytes);
  } catch (...) {
    release(memory);
    throw;
  }
  return memory;
}

std::unique_ptr<Download> Backend::beginDownload(const void* from, size_t bytes) {
  auto held = std::make_unique<HeldDownload>(bytes);
  download(held->data(), from, bytes);
  return held;
}

}  // namespace revnet
